"""What is left of a picture's way to prefill when it comes again?

    python -m bench.cache_hit

Every picture is asked about three times: *cold*; behind another text, where its rows are cached at
the encoder (*rows*); and behind the same text with another question, where its KV is cached at
prefill (*KV*). A fourth group of requests has no picture (*text*). A picture's way is its fetch,
decoding, preprocessing, tower and transfer: what a median TTFT takes beside prefill, less what it
takes in requests without a picture. Pictures lie on a web server of this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import httpx

from bench.serving import hardware, stages
from bench.serving.checkpoints import folder_of
from bench.serving.cluster import NotMeasured, served_model, serving
from bench.serving.load import chat_body, run_load
from bench.serving.workload import picture
from epd.bench.metrics import first_token_s
from epd.bench.progress import Progress
from epd.errors import EpdError

SETTINGS = ("threads=1", "media.allow_private_addresses=true", "wire.dead_after_s=60")
QUESTION = {"type": "text", "text": "What is in this picture?"}
OTHER = {"type": "text", "text": "And which colours has it got?"}
BEFORE = {"type": "text", "text": "Look at this."}


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Requests of one kind; everything but the median TTFT is a mean per request."""

    name: str
    first_token_s: float
    intake_s: float
    tower_s: float
    row_bytes: float
    prefill_s: float

    @property
    def beside_prefill_s(self) -> float:
        """Of the TTFT."""
        return self.first_token_s - self.prefill_s


def main() -> int:
    """Measure the groups in turn; 2 when that failed."""
    args = _parser().parse_args()
    try:
        with TemporaryDirectory() as files, _site(Path(files)) as site:
            urls = _pictures(Path(files), site, args)
            groups = _measure(args, urls)
    except (EpdError, NotMeasured, ValueError, httpx.HTTPError) as error:
        print(f"bench.cache_hit: {error}", file=sys.stderr)
        return 2
    print(table(groups), file=sys.stderr)
    result = {
        "question": "cache hit",
        "command": sys.argv[1:],
        **hardware.facts(),
        "workload": vars(args),
        "settings": SETTINGS,
        "groups": [asdict(group) for group in groups],
    }
    print(json.dumps(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m bench.cache_hit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = found.add_argument
    add("--model", default="half-billion", help="a random one, built once, or a folder")
    add("--family", default="qwen2_5_vl", help="of a random model")
    add("--topology", default="1E1P1D")
    add("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    add("--pictures", type=int, default=10)
    add("--picture", type=int, nargs=2, default=[448, 448], metavar=("WIDTH", "HEIGHT"))
    add("--seed", type=int, default=0)
    add("--timeout-s", type=float, default=600.0)
    return found


class _Quiet(SimpleHTTPRequestHandler):
    """Serves files without a word."""

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


@contextmanager
def _site(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _pictures(folder: Path, site: str, args: argparse.Namespace) -> list[str]:
    """URLs; the first picture warms up."""
    rng = random.Random(args.seed)
    for number in range(args.pictures + 1):
        encoded = picture(tuple(args.picture), rng).partition(",")[2]
        (folder / f"{number}.jpg").write_bytes(base64.b64decode(encoded))
    return [f"{site}/{number}.jpg" for number in range(args.pictures + 1)]


def _measure(args: argparse.Namespace, urls: list[str]) -> list[Group]:
    shown: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    # No two begin alike, so that KV is found only where it should be.
    texts: list[dict[str, Any]] = [
        {"type": "text", "text": f"Number {n}."} for n in range(len(urls))
    ]
    groups: dict[str, list[list[dict[str, Any]]]] = {
        "cold": [[text, image, QUESTION] for text, image in zip(texts, shown, strict=True)],
        "rows": [[BEFORE, text, image] for text, image in zip(texts, shown, strict=True)],
        "KV": [[text, image, OTHER] for text, image in zip(texts, shown, strict=True)],
        "text": [[OTHER, text] for text in texts],
    }
    folder = folder_of(args.model, args.family)
    print(f"starting {args.topology}", file=sys.stderr)
    with serving(folder, args.topology, [*SETTINGS, *args.settings]) as url:
        model = served_model(url, args.timeout_s)
        progress = Progress(args.topology, len(groups))
        found = []
        for name, contents in groups.items():
            bodies = [
                chat_body(model, [{"role": "user", "content": content}], 2) for content in contents
            ]
            found.append(asyncio.run(_group(args, url, name, bodies)))
            progress.step()
    return found


async def _group(
    args: argparse.Namespace, url: str, name: str, bodies: list[dict[str, Any]]
) -> Group:
    ask = partial(run_load, f"{url}/v1", concurrency=1, timeout_s=args.timeout_s)
    await ask(bodies[:1])
    before = await stages.settled(url)
    records = await ask(bodies[1:])
    after = await stages.settled(url)
    if errors := {record.error for record in records if record.error}:
        raise NotMeasured(f"a request failed: {errors.pop()}")
    num = len(records)
    spent = stages.seconds_by_stage(before, after)
    return Group(
        name=name,
        first_token_s=statistics.median(filter(None, map(first_token_s, records))),
        intake_s=spent["encode"]["intake"] / num,
        tower_s=spent["encode"]["tower"] / num,
        row_bytes=(stages.total(before, after, "row_bytes_sent") or 0) / num,
        prefill_s=sum(spent["prefill"].values()) / num,
    )


def table(groups: list[Group]) -> str:
    """A line per group, in ms and bytes per request, and what of a picture's way is gone."""
    head = ("TTFT", "intake", "tower", "rows, bytes", "prefill", "picture's way", "of it gone")
    lines = [f"{'':8}" + "".join(f"{name:>15}" for name in head)]
    cold, text = groups[0], groups[-1]
    whole = cold.beside_prefill_s - text.beside_prefill_s
    for group in groups:
        way = group.beside_prefill_s - text.beside_prefill_s
        cells = (
            f"{1000 * group.first_token_s:.0f}",
            f"{1000 * group.intake_s:.1f}",
            f"{1000 * group.tower_s:.1f}",
            f"{group.row_bytes:.0f}",
            f"{1000 * group.prefill_s:.0f}",
            f"{1000 * way:.0f}",
            f"{100 * (1 - way / whole):.1f} %",
        )
        lines.append(f"{group.name:8}" + "".join(f"{cell:>15}" for cell in cells))
    return "\n".join([*lines, "", "intake: fetch, decoding and preprocessing; times in ms"])


if __name__ == "__main__":
    sys.exit(main())
