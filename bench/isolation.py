"""How long do running text streams pause while pictures arrive in a burst?

    python -m bench.isolation

Text streams run; when all of them have begun, requests with pictures are sent at once. The same on
every topology, on the same cores: what a stream feels of towers and prefills is what its gaps
between tokens become from the first of the burst to its last answer.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx

from bench.serving import hardware
from bench.serving.checkpoints import folder_of
from bench.serving.cluster import NotMeasured, served_model, serving
from bench.serving.load import chat_body, run_load
from bench.serving.workload import Prompts, Workload
from bench.towers import FAMILY, delayed
from epd.bench.metrics import percentile
from epd.bench.records import Record
from epd.bench.result import raw
from epd.errors import EpdError

SETTINGS = ("wire.dead_after_s=60", "encode.cache_bytes=0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One topology. The burst lasted from `began` to `ended`, on the clock of the streams."""

    topology: str
    streams: list[Record]
    burst: list[Record]
    began: float
    ended: float

    def gaps_s(self, *, inside: bool) -> list[float]:
        """Waits for a token that overlap the burst, or that do not."""
        return [
            later - earlier
            for stream in self.streams
            for (earlier, _), (later, _) in pairwise(stream.arrivals)
            if (earlier < self.ended and later > self.began) is inside
        ]

    def per_token_s(self) -> list[float]:
        """TPOT of each stream while the burst lasted."""
        found = []
        for stream in self.streams:
            times = [at for at, _ in stream.arrivals if self.began <= at <= self.ended]
            if len(times) > 1:
                found.append((times[-1] - times[0]) / (len(times) - 1))
        return found


def main() -> int:
    """Measure every topology; 2 when that failed."""
    args = _parser().parse_args()
    try:
        with _checkpoint(args) as folder:
            runs = [_measure(args, folder, name) for name in args.topology or ["EPD", "1E1P1D"]]
    except (EpdError, NotMeasured, ValueError, httpx.HTTPError) as error:
        print(f"bench.isolation: {error}", file=sys.stderr)
        return 2
    print(table(runs), file=sys.stderr)
    result = {
        "question": "isolation",
        "command": sys.argv[1:],
        **hardware.facts(),
        "workload": vars(args),
        "settings": SETTINGS,
        "runs": [
            {
                "topology": run.topology,
                "began": run.began,
                "ended": run.ended,
                "streams": [raw(record) for record in run.streams],
                "burst": [raw(record) for record in run.burst],
            }
            for run in runs
        ],
    }
    print(json.dumps(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m bench.isolation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = found.add_argument
    add("--model", default="thirty-million", help="a random one, built once, or a folder")
    add("--topology", action="append", default=[], help="may be repeated")
    add("--tower-s", type=float, default=0.2, help="a delay per picture; 0: the tower itself")
    add("--streams", type=int, default=4)
    add("--max-tokens", type=int, default=400, help="of each stream")
    add("--before-s", type=float, default=5.0, help="the streams run alone")
    add("--burst", type=int, default=6, help="requests with pictures, at once")
    add("--images", type=int, default=2, help="per request of the burst")
    add("--picture", type=int, nargs=2, default=[448, 448], metavar=("WIDTH", "HEIGHT"))
    add("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    add("--seed", type=int, default=0)
    add("--timeout-s", type=float, default=600.0)
    return found


def _checkpoint(args: argparse.Namespace) -> AbstractContextManager[Path]:
    if args.tower_s:
        return delayed(args.model, args.tower_s)
    return nullcontext(folder_of(args.model, FAMILY))


def _measure(args: argparse.Namespace, folder: Path, topology: str) -> Run:
    print(f"starting {topology}", file=sys.stderr)
    prompts = Prompts(folder)
    text = Workload(prompt_tokens=64, images=0, max_tokens=args.max_tokens, seed=str(args.seed))
    pictures = Workload(
        prompt_tokens=64 + 4 * args.images,
        images=args.images,
        max_tokens=2,
        picture=tuple(args.picture),
        seed=f"{args.seed} burst",
    )
    with serving(folder, topology, [*SETTINGS, *args.settings]) as url:
        model = served_model(url, args.timeout_s)

        def bodies(workload: Workload, first: int, num: int) -> list[dict[str, Any]]:
            return [
                chat_body(model, prompts.messages(workload, number), workload.max_tokens)
                for number in range(first, first + num)
            ]

        warm = [*bodies(pictures, 0, 1), {**bodies(text, 0, 1)[0], "max_tokens": 8}]
        streams, burst = bodies(text, 1, args.streams), bodies(pictures, 1, args.burst)
        return asyncio.run(
            run_burst(
                f"{url}/v1",
                topology,
                warm=warm,
                streams=streams,
                burst=burst,
                before_s=args.before_s,
                timeout_s=args.timeout_s,
            )
        )


async def run_burst(
    url: str,
    topology: str,
    *,
    warm: list[dict[str, Any]],
    streams: list[dict[str, Any]],
    burst: list[dict[str, Any]],
    before_s: float,
    timeout_s: float,
) -> Run:
    """Streams alone for `before_s`, then the burst beside them. NotMeasured: a request failed."""
    await run_load(url, warm, concurrency=1, timeout_s=timeout_s)
    over = asyncio.Event()
    clock = time.perf_counter()
    running = asyncio.create_task(
        run_load(url, _until(over, streams), concurrency=len(streams), timeout_s=timeout_s)
    )
    await asyncio.sleep(before_s)
    began = time.perf_counter() - clock
    asked = await run_load(url, burst, concurrency=len(burst), timeout_s=timeout_s)
    ended = time.perf_counter() - clock
    over.set()
    records = await running
    for record in [*asked, *records]:
        if record.error:
            raise NotMeasured(f"a request failed: {record.error}")
    return Run(topology=topology, streams=records, burst=asked, began=began, ended=ended)


def _until(over: asyncio.Event, streams: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A stream that ends is followed by another one, as long as the burst lasts."""
    for body in itertools.cycle(streams):
        if over.is_set():
            return
        yield body


def table(runs: list[Run]) -> str:
    """A line per topology, in ms."""
    head = ["gap p50", "gap p99", "burst p50", "burst p99", "worst", "TPOT p99", "burst, s"]
    lines = [f"{'topology':10}" + "".join(f"{name:>12}" for name in head)]
    for run in runs:
        before, during = run.gaps_s(inside=False), run.gaps_s(inside=True)
        cells = [
            percentile(before, 50),
            percentile(before, 99),
            percentile(during, 50),
            percentile(during, 99),
            max(during, default=None),
            percentile(run.per_token_s(), 99),
        ]
        shown = ["n/a" if cell is None else f"{1000 * cell:.0f}" for cell in cells]
        shown.append(f"{run.ended - run.began:.1f}")
        lines.append(f"{run.topology:10}" + "".join(f"{cell:>12}" for cell in shown))
    note = "gaps between tokens of text streams, in ms, without and during the burst"
    return "\n".join([*lines, "", note])


if __name__ == "__main__":
    sys.exit(main())
