"""The command of this package: measure topologies under loads. `--help` lists what can be set."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

import bench.topologies
from bench.serving import hardware, stages
from bench.serving.checkpoints import folder_of
from bench.serving.cluster import NotMeasured, served_model, serving
from bench.serving.load import chat_body, run_load
from bench.serving.workload import Prompts, Workload
from bench.topologies.report import Point, summary, table
from epd.bench.progress import Progress
from epd.bench.records import Record
from epd.bench.result import raw
from epd.config import Config, load_config
from epd.errors import EpdError

WARMUP_TOKENS = 4


def main() -> int:
    """Measure every point and report; 1 when a request failed, 2 when nothing could be measured."""
    args = parser().parse_args()
    try:
        config = load_config(None, args.settings)
        folder = folder_of(args.model, args.family)
        prompts = Prompts(folder)
        points: list[Point] = []
        for name in [args.url] if args.url else args.topology or ["EPD"]:
            points += _measure(args, folder, prompts, name)
    except (EpdError, NotMeasured, ValueError, httpx.HTTPError) as error:
        print(f"bench.topologies: {error}", file=sys.stderr)
        return 2
    print(table(points), file=sys.stderr)
    print(json.dumps(_result(args, config, points)))
    return int(any(record.error for point in points for record in point.records))


def parser() -> argparse.ArgumentParser:
    """What is measured."""
    found = argparse.ArgumentParser(
        prog="python -m bench.topologies",
        description=bench.topologies.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = found.add_argument
    add("--model", default="tiny", help="tiny, half-billion (random, built once) or a folder")
    add("--family", default="qwen2_5_vl", help="of a random model")
    add("--topology", action="append", default=[], help="may be repeated (default EPD)")
    add("--url", help="measure this running server instead; --model is its checkpoint")
    add("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    add("--concurrency", type=int, nargs="+", default=[1])
    add("--images", type=int, nargs="+", default=[0], help="pictures per request")
    add("--picture", type=int, nargs=2, default=[448, 448], metavar=("WIDTH", "HEIGHT"))
    add("--prompt-tokens", type=int, default=535, help="of the rendered text, without pictures")
    add("--max-tokens", type=int, default=128, help="exactly so many are generated")
    add("--requests", type=int, default=16, help="per point, after its warm-up")
    add("--seed", type=int, default=0)
    add("--timeout-s", type=float, default=600.0)
    return found


@contextmanager
def _server(args: argparse.Namespace, folder: Path, name: str) -> Iterator[str]:
    if args.url:
        yield args.url.rstrip("/").removesuffix("/v1")
        return
    print(f"starting {name}", file=sys.stderr)
    with serving(folder, name, args.settings) as url:
        yield url


def _measure(
    args: argparse.Namespace, folder: Path, prompts: Prompts, name: str
) -> Iterator[Point]:
    """All loads on one topology, one after the other."""
    with _server(args, folder, name) as url:
        model = served_model(url, args.timeout_s)
        for images, concurrency in itertools.product(args.images, args.concurrency):
            workload = Workload(
                prompt_tokens=args.prompt_tokens,
                images=images,
                max_tokens=args.max_tokens,
                picture=tuple(args.picture),
                # So that no two points ask the same.
                seed=f"{args.seed} {images} {concurrency}",
            )
            bodies = [
                chat_body(model, prompts.messages(workload, number), workload.max_tokens)
                for number in range(args.requests + concurrency)
            ]
            title = f"{name} images={images} clients={concurrency}"
            records, spent = asyncio.run(
                _point(url, title, bodies, concurrency=concurrency, timeout_s=args.timeout_s)
            )
            _check_lengths(records, workload)
            yield Point(
                topology=name,
                images=images,
                concurrency=concurrency,
                records=records,
                stages=spent,
            )


async def _point(
    url: str, title: str, bodies: list[dict[str, Any]], *, concurrency: int, timeout_s: float
) -> tuple[list[Record], dict[str, dict[str, float]]]:
    """The first bodies, one per client, warm up with short answers; the others are measured."""
    warmup = [{**body, "max_tokens": WARMUP_TOKENS} for body in bodies[:concurrency]]
    measured = bodies[concurrency:]
    await run_load(f"{url}/v1", warmup, concurrency=concurrency, timeout_s=timeout_s)
    before = await stages.settled(url)
    progress = Progress(title, len(measured))
    records = await run_load(
        f"{url}/v1",
        measured,
        concurrency=concurrency,
        timeout_s=timeout_s,
        on_end=lambda _: progress.step(),
    )
    return records, stages.seconds_by_stage(before, await stages.settled(url))


def _check_lengths(records: list[Record], workload: Workload) -> None:
    """An answer of another length than asked for would not be comparable: it counts as failed."""
    for record in records:
        if record.error:
            continue
        if record.completion_tokens != workload.max_tokens:
            record.error = f"{record.completion_tokens} tokens where {workload.max_tokens} were due"
        elif not workload.images and record.prompt_tokens != workload.prompt_tokens:
            record.error = f"a prompt of {record.prompt_tokens} tokens, not as counted here"


def _result(args: argparse.Namespace, config: Config, points: list[Point]) -> dict[str, Any]:
    return {
        "question": "topologies",
        "command": sys.argv[1:],
        **hardware.facts(),
        "workload": vars(args),
        "config": None if args.url else config.model_dump(mode="json"),
        "points": [
            {**summary(point), "records": [raw(record) for record in point.records]}
            for point in points
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
