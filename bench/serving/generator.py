"""How many requests and bytes per second does the load generator send without bending its times?

    python -m bench.serving.generator

`epd bench` on one core asks a server without a model on another one, which tells when it got each
request and wrote each token. What the generator says of the same moments is later by the way
between two processes and by what the generator itself was behind; nothing else is in between.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.serving import hardware
from bench.serving.cluster import NotMeasured
from bench.serving.null_server import MODEL
from epd.bench import metrics
from epd.bench.arrivals import moments
from epd.bench.asking import Prepared
from epd.bench.bodies import Form, Writer
from epd.bench.datasets import Shape, asks
from epd.bench.load import Run, run_load, undisturbed
from epd.bench.metrics import Spread

STOP_S = 10.0
PICTURE = (1280, 720)
QUANTILES = ("median", "p99", "max")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Requests at a rate for a time, each with a picture of noise where `pictures`."""

    name: str
    rate: float
    seconds: float
    tokens: int = 16
    pictures: bool = False

    def prepared(self) -> list[Prepared]:
        """Pictures come from few different ones: only their bytes matter here."""
        num = max(1, round(self.rate * self.seconds))
        shape = Shape(
            name="image" if self.pictures else "random",
            num=num,
            seed=self.name,
            input_len=32,
            output_len=self.tokens,
            range_ratio=1.0,
            image_size=PICTURE,
            hit_rate=1.0,
        )
        due = moments(num, self.rate, 1.0, self.name)
        return Writer(Form(model=MODEL)).write(asks(shape), due)


def picture_rate(mb_per_s: float) -> float:
    """Requests per second with so many bytes of pictures."""
    one = Case(name="size", rate=1.0, seconds=1.0, pictures=True).prepared()[0]
    return mb_per_s * 1e6 / one.num_bytes


def cases(seconds: float) -> list[Case]:
    """The bar, 500 small requests or 50 MB of pictures per second, and twice that."""
    return [
        Case(name="500 requests/s", rate=500, seconds=seconds),
        Case(name="1000 requests/s", rate=1000, seconds=seconds),
        Case(name="50 MB/s", rate=picture_rate(50), seconds=seconds, pictures=True),
        Case(name="100 MB/s", rate=picture_rate(100), seconds=seconds, pictures=True),
    ]


@contextmanager
def null_server(cores: Sequence[int] | None, gap_ms: float) -> Iterator[str]:
    """A process on these cores, or on any; its URL."""
    argv = [sys.executable, "-m", "bench.serving.null_server", "--gap-ms", str(gap_ms)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        if cores is not None:
            os.sched_setaffinity(process.pid, cores)
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise NotMeasured("the null server did not start")
        yield url
    finally:
        process.terminate()
        process.wait(STOP_S)
        assert process.stdout is not None
        process.stdout.close()


def measured(case: Case, url: str) -> dict[str, Any]:
    """One case, from every request's record."""
    prepared = case.prepared()
    headers = {"Content-Type": "application/json"}
    timeout_s = STOP_S + case.seconds
    with undisturbed():
        began, waited = time.process_time(), _waited_s()
        run = asyncio.run(
            run_load(url, prepared, headers=headers, concurrency=None, timeout_s=timeout_s)
        )
        used, waited = time.process_time() - began, _waited_s() - waited
    shares = {"core_share": used / run.seconds, "waited_share": waited / run.seconds}
    return {**summary(case, run), **shares}


def _waited_s() -> float:
    """How long this process could have run and did not, because others had its core."""
    return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9


def summary(case: Case, run: Run) -> dict[str, Any]:
    """How far the generator's moments are from the server's; milliseconds."""
    good = [record for record in run.records if not record.error and record.path]
    sent = max((record.sent for record in run.records), default=0.0)
    told = [(record, record.path) for record in good if record.path is not None]
    late = {
        "lateness_ms": [metrics.lateness_s(record) for record in run.records],
        "sent_to_received_ms": [
            path["first_byte_at"] - run.began - record.sent for record, path in told
        ],
        "written_to_heard_ms": [
            at - (written - run.began)
            for record, path in told
            for (at, _), written in zip(record.arrivals, path["written_at"], strict=True)
        ],
    }
    size = sum(record.sent_bytes for record in run.records)
    return {
        "case": case.name,
        "asked_per_s": case.rate,
        "requests": len(run.records),
        "failed": len(run.records) - len(good),
        "sent_per_s": (len(run.records) - 1) / sent if sent else None,
        "sent_mb_per_s": size / 1e6 / run.seconds,
        "tokens_per_s": sum(len(record.arrivals) for record in good) / run.seconds,
        **{name: _quantiles(values) for name, values in late.items()},
    }


def _quantiles(values: Sequence[float]) -> dict[str, float | None]:
    spread = Spread.of(values, 1000)
    return {name: getattr(spread, name) for name in QUANTILES}


def table(found: Sequence[dict[str, Any]]) -> str:
    """For people."""
    names = ("lateness_ms", "sent_to_received_ms", "written_to_heard_ms")
    heads = ("late", "sent to received", "written to heard")
    lines = [
        f"{'':>22}{'sent/s':>9}{'MB/s':>8}{'core':>7}{'others':>7}"
        + "".join(f"{head + ' p50/p99/max':>34}" for head in heads)
    ]
    for one in found:
        cells = [
            "/".join("n/a" if one[name][q] is None else f"{one[name][q]:.2f}" for q in QUANTILES)
            for name in names
        ]
        rate = one["sent_per_s"]
        lines.append(
            f"{one['case']:>22}{rate or 0:>9.1f}{one['sent_mb_per_s']:>8.1f}"
            f"{one['core_share'] * 100:>6.0f}%{one['waited_share'] * 100:>6.0f}%"
            + "".join(f"{cell:>34}" for cell in cells)
        )
    return "\n".join(
        [*lines, "", "times in ms; core: what the generator used; others: it waited for its core"]
    )


def main() -> int:
    """Every case once; 1 where a request failed, 2 where there is no second core."""
    parser = argparse.ArgumentParser(prog="python -m bench.serving.generator", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seconds", type=float, default=10.0, help="per case")
    parser.add_argument("--gap-ms", type=float, default=10.0, help="between two tokens")
    args = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("bench.serving.generator: needs two cores", file=sys.stderr)
        return 2
    os.sched_setaffinity(0, cores[:1])
    with null_server(cores[1:], args.gap_ms) as url:
        found = [measured(case, url) for case in cases(args.seconds)]
    print(table(found), file=sys.stderr)
    head = {"question": "load generator", "command": sys.argv[1:], **hardware.facts()}
    load = [round(value, 2) for value in os.getloadavg()]
    print(json.dumps({**head, "load_average": load, "workload": vars(args), "points": found}))
    return int(any(one["failed"] for one in found))


if __name__ == "__main__":
    sys.exit(main())
