"""What does the prefix cache save in the second turn of a chat?

Bytes of KV from prefill to decode, and the time to the first token, with language.prefix_cache on
and off, side by side:

    python -m bench.second_turn --model half-billion --topology 1E1P1D --prompt-tokens 1000
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from bench.serving import hardware, stages
from bench.serving.checkpoints import folder_of
from bench.serving.cluster import NotMeasured, served_model, serving
from bench.serving.load import chat_body, run_load
from bench.serving.workload import Prompts, Workload
from epd.bench.metrics import first_token_s, percentile
from epd.bench.progress import Progress
from epd.bench.records import Record
from epd.config import Config, load_config
from epd.errors import EpdError

KV_BYTES = "kv_bytes_sent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One turn of a chat. `kv_bytes`: from prefill to decode; None where nobody counts them."""

    turn: int
    prompt_tokens: int
    cached_tokens: int
    first_token_s: float
    kv_bytes: float | None


def main() -> int:
    """Measure with and without; 2 when that failed."""
    args = _parser().parse_args()
    try:
        config = load_config(None, args.settings)
        folder = folder_of(args.model, args.family)
        turns = {cached: _measure(args, folder, cached) for cached in (True, False)}
    except (EpdError, NotMeasured, ValueError, httpx.HTTPError) as error:
        print(f"bench.second_turn: {error}", file=sys.stderr)
        return 2
    print(table(turns), file=sys.stderr)
    print(json.dumps(_result(args, config, turns)))
    return 0


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m bench.second_turn",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = found.add_argument
    add("--model", default="tiny", help="tiny, half-billion (random, built once) or a folder")
    add("--family", default="qwen2_5_vl", help="of a random model")
    add("--topology", default="1E1P1D")
    add("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    add("--images", type=int, default=0, help="pictures in the first turn")
    add("--prompt-tokens", type=int, default=1000, help="of the first turn's text")
    add("--max-tokens", type=int, default=32, help="exactly so many per answer")
    add("--chats", type=int, default=5)
    add("--seed", type=int, default=0)
    add("--timeout-s", type=float, default=600.0)
    return found


def _measure(args: argparse.Namespace, folder: Path, cached: bool) -> list[Turn]:
    """Chats one after another on a cluster of their own."""
    setting = f"language.prefix_cache={json.dumps(cached)}"
    print(f"starting {args.topology} with {setting}", file=sys.stderr)
    prompts = Prompts(folder)
    workload = Workload(
        prompt_tokens=args.prompt_tokens,
        images=args.images,
        max_tokens=args.max_tokens,
        seed=str(args.seed),
    )
    turns: list[Turn] = []
    with serving(folder, args.topology, [*args.settings, setting]) as url:
        model = served_model(url, args.timeout_s)
        progress = Progress(setting, args.chats + 1)
        for number in range(args.chats + 1):
            chat = _Chat(url, model, args)
            found = asyncio.run(chat.run(prompts.messages(workload, number)))
            turns += found if number else []  # the first one warms up
            progress.step()
    return turns


class _Chat:
    """Two turns: a question, its answer, and another question after both."""

    def __init__(self, url: str, model: str, args: argparse.Namespace) -> None:
        self._url = url
        self._model = model
        self._args = args

    async def run(self, messages: list[dict[str, Any]]) -> list[Turn]:
        first, answer = await self._turn(1, messages)
        again = {"role": "user", "content": "And then?"}
        second, _ = await self._turn(
            2, [*messages, {"role": "assistant", "content": answer}, again]
        )
        return [first, second]

    async def _turn(self, number: int, messages: list[dict[str, Any]]) -> tuple[Turn, str]:
        before = await stages.settled(self._url)
        body = chat_body(self._model, messages, self._args.max_tokens)
        (record,) = await run_load(
            f"{self._url}/v1", [body], concurrency=1, timeout_s=self._args.timeout_s
        )
        after = await stages.settled(self._url)
        turn = Turn(
            turn=number,
            prompt_tokens=record.prompt_tokens,
            cached_tokens=record.cached_tokens,
            first_token_s=_first_token_s(record),
            kv_bytes=stages.total(before, after, KV_BYTES),
        )
        return turn, record.text


def _first_token_s(record: Record) -> float:
    found = first_token_s(record)
    if record.error or found is None:
        raise NotMeasured(f"a turn failed: {record.error or 'no token came'}")
    return found


def table(turns: dict[bool, list[Turn]]) -> str:
    """Medians, with and without the cache side by side."""
    rows = [("", "prefix cache on", "off")]
    for number in (1, 2):
        on, off = (
            [_numbers(turn) for turn in turns[cached] if turn.turn == number]
            for cached in (True, False)
        )
        rows += [
            (f"turn {number}: {name}", _median(on, name), _median(off, name))
            for name in ("prompt tokens", "of these cached", "KV bytes sent", "first token, ms")
        ]
    return "\n".join(f"{name:26}{with_:>18}{without:>18}" for name, with_, without in rows)


def _numbers(turn: Turn) -> dict[str, float | None]:
    return {
        "prompt tokens": turn.prompt_tokens,
        "of these cached": turn.cached_tokens,
        "KV bytes sent": turn.kv_bytes,
        "first token, ms": turn.first_token_s * 1000,
    }


def _median(turns: Sequence[dict[str, float | None]], name: str) -> str:
    known = percentile([value for turn in turns if (value := turn[name]) is not None], 50)
    return "n/a" if known is None else f"{known:,.0f}"


def _result(
    args: argparse.Namespace, config: Config, turns: dict[bool, list[Turn]]
) -> dict[str, Any]:
    return {
        "question": "second turn",
        "command": sys.argv[1:],
        **hardware.facts(),
        "workload": vars(args),
        "config": config.model_dump(mode="json"),
        "prefix_cache_on": [asdict(turn) for turn in turns[True]],
        "prefix_cache_off": [asdict(turn) for turn in turns[False]],
    }


if __name__ == "__main__":
    sys.exit(main())
