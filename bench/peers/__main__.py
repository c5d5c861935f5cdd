"""The command of this package: start one server after the other, ask each, and show the ratios."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

import bench.peers
from bench.peers.comparing import Comparison, Point, usual
from bench.peers.loads import LOADS
from bench.peers.page import write_page
from bench.peers.results import Results
from bench.peers.rows import lines
from bench.peers.servers import SERVERS
from bench.peers.table import commands, table
from bench.serving.checkpoints import folder_of
from bench.serving.workload import Prompts


def main() -> int:
    """0, or 1 where a server or a load could not be measured."""
    args = _parser().parse_args()
    signal.signal(signal.SIGTERM, _stopped)
    results = Results.read(args.out)
    failures: list[str] = []
    if not args.report:
        results.command = sys.argv[1:]
        folder = folder_of(args.model, "qwen2_5_vl")
        compared = Comparison(
            results=results, folder=folder, prompts=Prompts(folder), url=args.url, again=args.again
        )
        wanted = args.only or [usual()]
        failures = compared.measure({point for points in wanted for point in points})
    found = lines(results.runs)
    print(table(found))
    print()
    print(commands(results.servers))
    if args.page:
        write_page(args.page, results.facts(), found)
    for failure in failures:
        print(f"bench.peers: {failure}", file=sys.stderr)
    return int(bool(failures))


def _stopped(number: int, _: object) -> None:
    """Whoever runs now is ended on the way out."""
    sys.exit(128 + number)


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m bench.peers",
        description=bench.peers.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = found.add_argument
    add("--out", type=Path, required=True, metavar="FILE", help="JSON; what it has is kept")
    add("--model", default="half-billion", help="a random one, built once, or a folder")
    add(
        "--only",
        nargs="+",
        type=_points,
        metavar="SERVER:LOAD",
        help=f"of {', '.join(SERVERS)} and {', '.join(LOADS)}; a part left out is all",
    )
    add("--again", action="store_true", help="measure also what FILE has")
    add("--url", help="of one server of --only that runs already")
    add("--page", type=Path, metavar="FILE", help="write the results' page, in Markdown")
    add("--report", action="store_true", help="measure nothing")
    return found


def _points(text: str) -> list[Point]:
    server, _, load = text.partition(":")
    if server not in ("", *SERVERS) or load not in ("", *LOADS):
        raise argparse.ArgumentTypeError(
            f"{text} is not SERVER:LOAD with one of {', '.join(SERVERS)} and {', '.join(LOADS)}"
        )
    return [
        (one, of) for one in ([server] if server else SERVERS) for of in ([load] if load else LOADS)
    ]


if __name__ == "__main__":
    sys.exit(main())
