"""The command of this package. `--help` lists what can be set."""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import bench.transfer
from bench.serving import hardware
from bench.serving.cluster import NotMeasured
from bench.transfer.network import Host, two_hosts
from epd.config.section import MIB
from epd.wire import curve

WARMUP = 2
ROW_BYTES = 7168
STOP_S = 20.0

WAYS = ("tcp", "curve", "shm")
PLAIN = {
    "bytes": "plain: one TCP connection; memcpy where rows go through shm",
    "zmq": "plain: ZeroMQ's messages over one TCP connection",
}


def main() -> int:
    """Measure every way; 2 when that failed."""
    args = _parser().parse_args()
    try:
        with two_hosts(args.network) as hosts:
            found = {way: _measure(way, hosts, args) for way in args.ways}
    except NotMeasured as error:
        print(f"bench.transfer: {error}", file=sys.stderr)
        return 2
    points = [
        _point(way, size, items, at_once=args.at_once)
        for way, items in found.items()
        for size in args.mib
    ]
    lines = [line(way, points) for way in args.ways] if len(args.mib) > 1 else []
    print(table(points, lines, args.beside), file=sys.stderr)
    result = {
        "question": "transfer",
        "command": sys.argv[1:],
        **hardware.facts(),
        "workload": vars(args),
        "points": points,
        "lines": lines,
        "items": found,
    }
    print(json.dumps(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m bench.transfer",
        description=bench.transfer.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = found.add_argument
    add("--network", choices=("loopback", "namespaces"), default="loopback")
    add("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    add("--mib", type=int, nargs="+", default=[4, 19, 64, 192], help="sizes of items")
    add(
        "--beside",
        choices=("bytes", "zmq"),
        default="bytes",
        help="the plain way: bytes alone, or messages of ZeroMQ without the rest of epd",
    )
    add("--at-once", type=int, default=1, help="items of a request, pulled together")
    add("--rounds", type=int, default=15, help="items of each size")
    add("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE", help="of wire")
    return found


def _measure(
    way: str, hosts: tuple[Host, Host], args: argparse.Namespace
) -> list[dict[str, float]]:
    """One pair of processes; sizes in random order, after a warm-up."""
    rows = [max(1, mib * MIB // ROW_BYTES) for mib in args.mib]
    todo = rows * args.rounds
    random.Random(way).shuffle(todo)
    todo = [max(rows)] * WARMUP + todo
    settings: dict[str, Any] = {"insecure": True, "dead_after_s": 60}
    if way != "shm":
        settings["shm_bytes"] = 0
    for each in args.settings:
        key, _, value = each.partition("=")
        settings[key] = json.loads(value)
    print(f"{way}: {len(todo)} items", file=sys.stderr)
    with ExitStack() as stack:
        if way == "curve":
            keys = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "keys"
            curve.generate(keys)
            settings["curve_dir"] = str(keys)
        names = ("encode", "prefill")
        ends = [
            stack.enter_context(_end(name, host, settings, todo, args))
            for name, host in zip(names, hosts, strict=True)
        ]
        hellos = [_line(end) for end in ends]
        for end, other in zip(ends, reversed(hellos), strict=True):
            assert end.stdin is not None
            end.stdin.write(other + "\n")
            end.stdin.flush()
        found: list[dict[str, float]] = json.loads(_line(ends[1]))
    return found[WARMUP:]


@contextmanager
def _end(
    name: str, host: Host, settings: dict[str, Any], todo: Sequence[int], args: argparse.Namespace
) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-m", "bench.transfer.ends", name, host.address]
    said = [json.dumps(settings), json.dumps(todo), args.beside, str(args.at_once)]
    process = subprocess.Popen(
        [*host.prefix, *argv, *said],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=STOP_S)


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise NotMeasured("an end died; its last words are above")
    return line.strip()


def _point(way: str, mib: int, items: Sequence[dict[str, float]], at_once: int) -> dict[str, Any]:
    """Medians of one size. `share`: of the plain way's rate, request by request."""
    size = max(1, mib * MIB // ROW_BYTES) * ROW_BYTES * at_once
    own = [item for item in items if item["bytes"] == size]
    return {
        "way": way,
        "mib": mib,
        "bytes": size,
        "rows_bytes_per_s": size / statistics.median(item["rows_s"] for item in own),
        "plain_bytes_per_s": size / statistics.median(item["plain_s"] for item in own),
        "rows_cpu_s_per_gb": 1e9 / size * statistics.median(item["rows_cpu_s"] for item in own),
        "plain_cpu_s_per_gb": 1e9 / size * statistics.median(item["plain_cpu_s"] for item in own),
        "share": statistics.median(item["plain_s"] / item["rows_s"] for item in own),
        "best_share": min(item["plain_s"] for item in own) / min(item["rows_s"] for item in own),
    }


def line(way: str, points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What every item costs, and the rate at which its bytes come: a line through the medians."""
    own = [point for point in points if point["way"] == way]
    sizes = [point["bytes"] for point in own]
    found: dict[str, Any] = {"way": way}
    for name in ("rows", "plain"):
        seconds = [point["bytes"] / point[f"{name}_bytes_per_s"] for point in own]
        slope, fixed = statistics.linear_regression(sizes, seconds)
        found |= {f"{name}_fixed_s": fixed, f"{name}_rate": 1 / slope}
    return {**found, "share": found["rows_rate"] / found["plain_rate"]}


def table(points: Sequence[dict[str, Any]], lines: Sequence[dict[str, Any]], beside: str) -> str:
    """A line per way and size, and below what it is made of."""
    head = ("way", "MiB", "rows, GB/s", "plain, GB/s", "share", "best of each", "CPU s/GB", "plain")
    rows = ["".join(f"{name:>14}" for name in head)]
    for point in points:
        cells = (
            point["way"],
            str(point["mib"]),
            f"{point['rows_bytes_per_s'] / 1e9:.2f}",
            f"{point['plain_bytes_per_s'] / 1e9:.2f}",
            f"{100 * point['share']:.0f} %",
            f"{100 * point['best_share']:.0f} %",
            f"{point['rows_cpu_s_per_gb']:.2f}",
            f"{point['plain_cpu_s_per_gb']:.2f}",
        )
        rows.append("".join(f"{cell:>14}" for cell in cells))
    made_of = [
        f"{each['way']}: {1000 * each['rows_fixed_s']:.1f} ms for each, then "
        f"{each['rows_rate'] / 1e9:.2f} GB/s, {100 * each['share']:.0f} % of plain"
        for each in lines
    ]
    return "\n".join([*rows, "", *made_of, "", PLAIN[beside]])


if __name__ == "__main__":
    sys.exit(main())
