"""Microbenchmarks: what is made of their figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.micro import programs, pure
from bench.micro.__main__ import committed
from bench.micro.figures import Figure, cpu_us, table

MACHINE = {"cpu": "a", "cores": 2}


def figure(name: str, us: float, floor: float) -> Figure:
    return Figure(name=name, unit="x", us=us, floor=floor, floor_is="less")


def test_a_figure_is_compared_with_its_floor_and_with_what_was_committed() -> None:
    said = table([figure("a, 1", 30.0, 10.0), figure("b, 1", 5.0, 5.0)], {"a, 1": 20.0})
    first, second = said.splitlines()[1:3]
    assert first.split() == ["a,", "1", "30.00", "x", "10.00", "3.00", "1.50"]
    assert second.split()[-2:] == ["1.00", "n/a"]
    assert "floor of a: less" in said


def test_only_figures_of_the_same_machine_are_compared_the_newest_ones(tmp_path: Path) -> None:
    for name, machine, us in (
        ("micro_x_2030-01-01", MACHINE, 1.0),
        ("micro_x_2030-01-02", MACHINE, 2.0),
        ("micro_y_2030-01-03", {"cpu": "b", "cores": 2}, 3.0),
        ("other_x_2030-01-04", MACHINE, 4.0),
    ):
        found = {"hardware": machine, "figures": [{"name": "a", "us": us}]}
        (tmp_path / f"{name}.json").write_text(json.dumps(found))
    assert committed(tmp_path, MACHINE) == {"a": 2.0}
    assert committed(tmp_path, {"cpu": "c", "cores": 2}) == {}


def test_processor_time_does_not_count_what_is_waited_for() -> None:
    """Another process computes for some ten milliseconds whenever it is asked."""
    work = "import sys\nfor line in sys.stdin: print(sum(range(2 * 10**6)), flush=True)"
    argv = [sys.executable, "-S", "-c", work]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None and other.stdout is not None
        asked, answers = other.stdin, other.stdout

        def wait() -> None:
            print(file=asked, flush=True)
            answers.readline()

        assert cpu_us(wait, times=2, rounds=1) < 5_000


def test_programs_figures_are_all_times_per_unit() -> None:
    case = {"case": "c", "unit": "images/s", "per_core": {"ours": 100.0, "plain": 200.0}}
    (decoded,) = programs.decoded({"cases": [case]})
    assert (decoded.us, decoded.floor, decoded.unit) == (10_000.0, 5_000.0, "image")
    point = {"mib": 1, "way": "shm", "rows_cpu_s_per_gb": 0.2, "plain_cpu_s_per_gb": 0.1}
    (sent,) = programs.sent({"points": [point]})
    assert (sent.us, sent.floor) == (200.0, 100.0)
    rounds = {"gateway": [{"cpu_s": 0.4}, {"cpu_s": 0.2}], "bare": [{"cpu_s": 0.1}]}
    asked = {"name": "s", "requests": 10, "tokens": 100, "rounds": rounds}
    (streamed,) = programs.streamed({"cases": [asked]})
    assert (streamed.us, streamed.floor) == pytest.approx((200.0, 100.0))


@pytest.mark.slow
def test_pure_parts_are_measured() -> None:
    assert all(one.us > one.floor > 0 for one in pure.figures())
