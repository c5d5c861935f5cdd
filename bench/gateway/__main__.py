"""The command of this package. `--help` lists what can be set."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

import bench.gateway
from bench.gateway.load import Answered, ask
from bench.gateway.servers import MODEL, Server, bare, gateway
from bench.serving import hardware
from bench.serving.checkpoints import folder_of
from bench.serving.cluster import NotMeasured
from epd.bench.progress import Progress

FAMILY = "qwen2_5_vl"
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
"""The least processor time that the kernel tells from none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What clients ask for: so many requests of so many tokens each, one every `pace_s` (0: at
    once)."""

    name: str
    stream: bool
    tokens: int
    clients: int
    requests: int
    pace_s: float = 0.0

    def body(self, server: str) -> bytes:
        """A short chat, greedy. Behind the gateway it is the stub that keeps the pace."""
        messages = [{"role": "user", "content": "Say something about the weather."}]
        asked = {"max_tokens": self.tokens, "stream": self.stream, "temperature": 0}
        pace = {"pace_s": self.pace_s} if server == "bare" else {}
        return json.dumps({"model": MODEL, "messages": messages, **asked, **pace}).encode()


def main() -> int:
    """Measure every case at both servers, in turns; 2 when that failed."""
    args = _parser().parse_args()
    cases = _cases(args)
    progress = Progress("rounds", len(cases) * (args.rounds + 1))
    try:
        with ExitStack() as stack:
            folder = folder_of(args.model, FAMILY)
            servers = {
                "bare": stack.enter_context(bare()),
                "gateway": stack.enter_context(gateway(folder, 0.0)),
            }
            paced = {**servers, "gateway": stack.enter_context(gateway(folder, args.pace_s))}
            found = [
                {
                    **asdict(case),
                    "rounds": _rounds(
                        case, paced if case.pace_s else servers, args.rounds, progress
                    ),
                }
                for case in cases
            ]
    except NotMeasured as error:
        print(f"bench.gateway: {error}", file=sys.stderr)
        return 2
    print(table(found), file=sys.stderr)
    result = {
        "question": "gateway",
        "command": sys.argv[1:],
        **hardware.facts(),
        "workload": vars(args),
        "cases": found,
    }
    print(json.dumps(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m bench.gateway", description=bench.gateway.__doc__
    )
    found.add_argument("--model", default="tiny", help="whose tokenizer and template (tiny)")
    found.add_argument("--clients", type=int, default=32, help="that ask at once (32)")
    found.add_argument("--tokens", type=int, default=256, help="of each stream (256)")
    found.add_argument("--streams", type=int, default=64, help="of each round (64)")
    found.add_argument("--requests", type=int, default=512, help="of one token, per round (512)")
    found.add_argument("--rounds", type=int, default=5, help="that count, after one (5)")
    found.add_argument(
        "--pace-s", type=float, default=0.002, help="between two tokens of a paced stream (0.002)"
    )
    return found


def _cases(args: argparse.Namespace) -> list[Case]:
    streams = Case(
        name="streams",
        stream=True,
        tokens=args.tokens,
        clients=args.clients,
        requests=args.streams,
    )
    return [
        streams,
        replace(streams, name="paced", pace_s=args.pace_s),
        Case(name="requests", stream=False, tokens=1, clients=args.clients, requests=args.requests),
        Case(name="latency", stream=True, tokens=1, clients=1, requests=args.requests // 4),
    ]


def _rounds(
    case: Case, servers: dict[str, Server], num: int, progress: Progress
) -> dict[str, list[dict[str, Any]]]:
    """The first one warms up and is thrown away."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in servers}
    for _ in range(num + 1):
        for name, server in servers.items():
            found[name].append(_round(server, case, case.body(name)))
        progress.step()
    return {name: rounds[1:] for name, rounds in found.items()}


def _round(server: Server, case: Case, body: bytes) -> dict[str, Any]:
    before, began = server.cpu_s(), time.perf_counter()
    answers = asyncio.run(
        ask(
            server.url,
            body,
            stream=case.stream,
            clients=case.clients,
            requests=case.requests,
        )
    )
    wall_s, cpu_s = time.perf_counter() - began, server.cpu_s() - before
    _check(case, answers)
    seconds = [(answer.first_s, answer.whole_s) for answer in answers]
    return {"cpu_s": cpu_s, "wall_s": wall_s, "answers": seconds}


def _check(case: Case, answers: list[Answered]) -> None:
    """A token is an event: nothing is won by saying several at once."""
    if len(answers) != case.requests:
        raise NotMeasured(f"{len(answers)} answers to {case.requests} requests")
    if case.stream and min(answer.events for answer in answers) < case.tokens:
        raise NotMeasured("a stream had fewer events than tokens")


def table(found: list[dict[str, Any]]) -> str:
    """Of the round that took least: other work on the machine only adds, through its caches."""
    lines = [
        f"{'':18}{'requests per':>14}{'tokens per':>14}{'tokens per':>14}{'first byte':>20}",
        f"{'':18}{'CPU second':>14}{'CPU second':>14}{'second':>14}{'p50 / p99':>20}",
    ]
    for case in found:
        rates = {}
        for name, rounds in case["rounds"].items():
            cpu_s = max(TICK_S, min(one["cpu_s"] for one in rounds))
            wall_s = min(one["wall_s"] for one in rounds)
            rates[name] = case["requests"] / cpu_s
            lines.append(
                f"{case['name']:9} {name:8}{rates[name]:14.0f}{rates[name] * case['tokens']:14.0f}"
                f"{case['requests'] * case['tokens'] / wall_s:14.0f}{_first(rounds):>20}"
            )
        share = rates["gateway"] / rates["bare"]
        lines.append(f"{case['name']:9} the gateway has {share:.0%} of the bare rate")
    return "\n".join(lines)


def _first(rounds: list[dict[str, Any]]) -> str:
    seconds = sorted(first for one in rounds for first, _ in one["answers"])
    p50, p99 = (1e3 * seconds[int(share * (len(seconds) - 1))] for share in (0.5, 0.99))
    return f"{p50:.1f} / {p99:.1f} ms"


if __name__ == "__main__":
    sys.exit(main())
