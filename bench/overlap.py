"""What does overlap save of the time to the first token when encoding takes longest?

    python -m bench.overlap

One request at a time on 1E1P1D: pictures whose tower sleeps for --tower-s each, so that encode and
prefill do not share cores, before a real language model. With everything on, with everything off,
and with each of encode.overlap, language.overlap and language.overlap_handoff off alone.

The bound is that of a perfect overlap of n equal pictures, one after another in one tower:
max(n * tE + tP / n, tE + tP) instead of n * tE + tP, what else a request takes staying as it is.
tE, per picture, and tP, per prompt, are the workers' own counters with everything off.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from bench.serving import hardware, stages
from bench.serving.cluster import NotMeasured, served_model, serving
from bench.serving.load import chat_body, run_load
from bench.serving.workload import Prompts, Workload
from bench.towers import delayed
from epd.bench.metrics import first_token_s
from epd.bench.progress import Progress
from epd.bench.records import Record
from epd.bench.result import raw
from epd.errors import EpdError

SWITCHES = ("encode.overlap", "language.overlap", "language.overlap_handoff")
CASES: dict[str, tuple[str, ...]] = {
    "all on": (),
    "all off": SWITCHES,
    **{f"{switch} off": (switch,) for switch in SWITCHES},
}
SETTINGS = ("threads=1", "encode.max_batch_items=1", "encode.cache_bytes=0", "wire.dead_after_s=60")
"""One picture per tower forward: a batch lands as a whole, which leaves nothing to overlap."""

TEXT_TOKENS = 64
PUBLISHED = 0.21
"""The best published share that overlap saves of a median TTFT (gLLM, 1 encoder)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Requests under one choice of switches. Seconds per request of the tower and of prefill."""

    name: str
    records: list[Record]
    tower_s: float
    prefill_s: float

    @property
    def first_token_s(self) -> float:
        """The median."""
        return statistics.median(filter(None, map(first_token_s, self.records)))


def main() -> int:
    """Measure every case; 2 when that failed."""
    args = _parser().parse_args()
    try:
        with delayed(args.model, args.tower_s) as folder:
            cases = [_measure(args, folder, name) for name in args.cases]
    except (EpdError, NotMeasured, ValueError, httpx.HTTPError) as error:
        print(f"bench.overlap: {error}", file=sys.stderr)
        return 2
    print(table(cases, args.images), file=sys.stderr)
    result = {
        "question": "overlap",
        "command": sys.argv[1:],
        **hardware.facts(),
        "workload": vars(args),
        "settings": SETTINGS,
        "published": PUBLISHED,
        "cases": [
            {
                "name": case.name,
                "first_token_s": case.first_token_s,
                "tower_s": case.tower_s,
                "prefill_s": case.prefill_s,
                "records": [raw(record) for record in case.records],
            }
            for case in cases
        ],
    }
    print(json.dumps(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m bench.overlap",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = found.add_argument
    add("--model", default="thirty-million", help="a random one, built once, or a folder")
    add("--cases", nargs="+", choices=CASES, default=list(CASES))
    add("--images", type=int, default=6, help="per request")
    add("--picture", type=int, nargs=2, default=[448, 448], metavar=("WIDTH", "HEIGHT"))
    add("--tower-s", type=float, default=0.5, help="per picture")
    add("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    add("--requests", type=int, default=15, help="per case, after a warm-up")
    add("--seed", type=int, default=0)
    add("--timeout-s", type=float, default=600.0)
    return found


def _measure(args: argparse.Namespace, folder: Path, name: str) -> Case:
    off = [f"{switch}=false" for switch in CASES[name]]
    print(f"starting 1E1P1D, {name}", file=sys.stderr)
    prompts = Prompts(folder)
    workload = Workload(
        prompt_tokens=TEXT_TOKENS + 4 * args.images,
        images=args.images,
        max_tokens=2,
        picture=tuple(args.picture),
        seed=str(args.seed),
    )
    with serving(folder, "1E1P1D", [*SETTINGS, *args.settings, *off]) as url:
        model = served_model(url, args.timeout_s)
        bodies = [
            chat_body(model, prompts.messages(workload, number), workload.max_tokens)
            for number in range(args.requests + 1)
        ]
        return asyncio.run(_case(args, url, name, bodies))


async def _case(
    args: argparse.Namespace, url: str, name: str, bodies: list[dict[str, Any]]
) -> Case:
    progress = Progress(name, len(bodies))

    async def ask(some: list[dict[str, Any]]) -> list[Record]:
        return await run_load(
            f"{url}/v1",
            some,
            concurrency=1,
            timeout_s=args.timeout_s,
            on_end=lambda _: progress.step(),
        )

    await ask(bodies[:1])
    before = await stages.settled(url)
    records = await ask(bodies[1:])
    spent = stages.seconds_by_stage(before, await stages.settled(url))
    if errors := {record.error for record in records if record.error}:
        raise NotMeasured(f"a request failed: {errors.pop()}")
    return Case(
        name=name,
        records=records,
        tower_s=spent["encode"]["tower"] / len(records),
        prefill_s=sum(spent["prefill"].values()) / len(records),
    )


def bound_s(off: Case, images: int) -> float:
    """TTFT of a perfect overlap, by what its stages take where nothing overlaps."""
    tower, prefill = off.tower_s, off.prefill_s
    rest = off.first_token_s - tower - prefill
    return rest + max(tower + prefill / images, tower / images + prefill)


def table(cases: list[Case], images: int) -> str:
    """Medians, and what they are of the case with everything off."""
    off = next((case for case in cases if case.name == "all off"), None)
    lines = [f"{'':32}{'TTFT, ms':>10}{'tower':>10}{'prefill':>10}{'saved':>10}{'of bound':>10}"]
    for case in cases:
        cells = [case.first_token_s, case.tower_s, case.prefill_s]
        line = f"{case.name:32}" + "".join(f"{1000 * cell:>10.0f}" for cell in cells)
        if off is not None:
            saved = off.first_token_s - case.first_token_s
            most = off.first_token_s - bound_s(off, images)
            line += f"{100 * saved / off.first_token_s:>8.1f} %{100 * saved / most:>8.1f} %"
        lines.append(line)
    if off is not None:
        bound = bound_s(off, images)
        share = 1 - bound / off.first_token_s
        lines.append(f"{'bound':32}{1000 * bound:>10.0f}{'':20}{100 * share:>8.1f} %")
    lines.append(f"{'published':62}{100 * PUBLISHED:>8.1f} %")
    return "\n".join([*lines, "", "tower and prefill: ms per request, by the workers' counters"])


if __name__ == "__main__":
    sys.exit(main())
