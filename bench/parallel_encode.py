"""How much sooner does a request with many pictures answer when encoders share them?

    python -m bench.parallel_encode

Every encode worker is real but for its tower, which sleeps as long as the published one takes for
a picture of 12 megapixels, so that six of them need no six devices. Published, and to be reached:
EPD (ICML 2025), one request alone, with and without sharing among 6 encoders.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from pathlib import Path

import httpx

from bench.serving import hardware
from bench.serving.cluster import NotMeasured, served_model, serving
from bench.serving.load import chat_body, run_load
from bench.serving.workload import Prompts, Workload
from bench.towers import delayed
from epd.bench.metrics import first_token_s
from epd.bench.progress import Progress
from epd.bench.records import Record
from epd.bench.result import raw
from epd.errors import EpdError

PUBLISHED = {2: 1.6, 4: 2.4, 6: 2.9, 8: 2.5}
"""Pictures: how many times sooner with 6 encoders."""

TOWER_S = 0.44
"""Per picture, fitted to the published table; the rest of it is REST_S + REST_PER_PICTURE_S * n."""

REST_S, REST_PER_PICTURE_S = 0.45, 0.045
PROMPT_TOKENS = 64

SETTINGS = (
    "threads=1",
    "encode.decoders=1",
    "encode.intake_threads=1",
    "encode.rows_bytes=67108864",
    "encode.cache_bytes=0",
    "encode.prepared_bytes=134217728",
    "encode.fetch_bytes=67108864",
    "encode.queued_bytes=67108864",
    "wire.shm_bytes=16777216",
    "wire.dead_after_s=60",
    "language.kv_tokens=32768",
    "media.image.max_pixels=4194304",
    "media.video.max_pixels=4194304",
    "media.video.max_decoded_pixels=16777216",
)
"""Six encoders beside each other fit into little memory."""

Times = dict[int, dict[int, list[Record]]]
"""encoders -> pictures -> requests, one after another."""


def main() -> int:
    """Measure with each number of encoders; 2 when that failed."""
    args = _parser().parse_args()
    try:
        with delayed(args.model, args.tower_s) as folder:
            times = {encoders: _measure(args, folder, encoders) for encoders in args.encoders}
    except (EpdError, NotMeasured, ValueError, httpx.HTTPError) as error:
        print(f"bench.parallel_encode: {error}", file=sys.stderr)
        return 2
    print(table(times), file=sys.stderr)
    result = {
        "question": "parallel encode",
        "command": sys.argv[1:],
        **hardware.facts(),
        "workload": vars(args),
        "settings": SETTINGS,
        "published": PUBLISHED,
        "requests": {
            encoders: {images: [raw(record) for record in found] for images, found in each.items()}
            for encoders, each in times.items()
        },
    }
    print(json.dumps(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m bench.parallel_encode",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = found.add_argument
    add("--model", default="tiny", help="tiny, half-billion (random, built once) or a folder")
    add("--encoders", type=int, nargs="+", default=[1, 2, 3, 4, 5, 6])
    add("--images", type=int, nargs="+", default=[2, 4, 6, 8])
    add("--picture", type=int, nargs=2, default=[224, 224], metavar=("WIDTH", "HEIGHT"))
    add("--tower-s", type=float, default=TOWER_S, help="per picture")
    add("--requests", type=int, default=5, help="per point, one after another")
    add("--seed", type=int, default=0)
    add("--timeout-s", type=float, default=600.0)
    return found


def _measure(args: argparse.Namespace, folder: Path, encoders: int) -> dict[int, list[Record]]:
    topology = f"{encoders}E1P1D"
    print(f"starting {topology}", file=sys.stderr)
    prompts = Prompts(folder)
    found: dict[int, list[Record]] = {}
    with serving(folder, topology, SETTINGS) as url:
        model = served_model(url, args.timeout_s)
        progress = Progress(topology, len(args.images))
        _ask(args, url, model, prompts, max(args.images), "warm-up")
        for images in args.images:
            found[images] = _ask(args, url, model, prompts, images, f"{args.seed} {encoders}")
            progress.step()
    return found


def _ask(
    args: argparse.Namespace, url: str, model: str, prompts: Prompts, images: int, seed: str
) -> list[Record]:
    workload = Workload(
        prompt_tokens=PROMPT_TOKENS + 4 * images,
        images=images,
        max_tokens=2,
        picture=tuple(args.picture),
        seed=f"{seed} {images}",
    )
    bodies = [
        chat_body(model, prompts.messages(workload, number), workload.max_tokens)
        for number in range(args.requests)
    ]
    records = asyncio.run(run_load(f"{url}/v1", bodies, concurrency=1, timeout_s=args.timeout_s))
    if errors := {record.error for record in records if record.error}:
        raise NotMeasured(f"a request failed: {errors.pop()}")
    return records


def table(times: Times) -> str:
    """Medians in ms by encoders and pictures, and how many times sooner than with one."""
    images = sorted(next(iter(times.values())))
    head = "".join(f"{f'{number} pictures':>20}" for number in images)
    lines = [f"{'encoders':>9}{head}   TTFT, ms (times sooner than the first line)"]
    base = _medians(next(iter(times.values())))
    for encoders, found in times.items():
        cells = "".join(
            f"{f'{1000 * median:.0f} ({base[number] / median:.2f})':>20}"
            for number, median in sorted(_medians(found).items())
        )
        lines.append(f"{encoders:>9}{cells}")
    published = "".join(f"{f'({PUBLISHED[n]})' if n in PUBLISHED else '':>20}" for n in images)
    rest = {n: REST_S + REST_PER_PICTURE_S * n for n in images}
    last = _medians(next(reversed(times.values())))
    slower = "".join(f"{f'({(base[n] + rest[n]) / (last[n] + rest[n]):.2f})':>20}" for n in images)
    return "\n".join(
        [
            *lines,
            f"{'published':>9}{published}",
            f"{'last*':>9}{slower}",
            "",
            "last*: the last line, were what is not the tower as slow as it was there: "
            f"{REST_S} s + {REST_PER_PICTURE_S} s per picture more, with any number of encoders",
        ]
    )


def _medians(found: dict[int, list[Record]]) -> dict[int, float]:
    return {
        images: statistics.median(filter(None, map(first_token_s, records)))
        for images, records in found.items()
    }


if __name__ == "__main__":
    sys.exit(main())
