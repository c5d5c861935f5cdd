"""What the benchmarks make of their measurements, on numbers that can be checked by hand."""

from __future__ import annotations

import pytest

from bench import isolation, overlap, parallel_encode
from bench.transfer.__main__ import ROW_BYTES, _point
from epd.bench.records import Record
from epd.config.section import MIB


def asked(*arrivals: float) -> Record:
    """Sent at 0, a token at each time."""
    return Record(sent=0.0, arrivals=[(at, 1) for at in arrivals], ended=arrivals[-1])


def case(name: str, first_token_s: float) -> overlap.Case:
    records = [asked(first_token_s)]
    return overlap.Case(name=name, records=records, tower_s=4.0, prefill_s=2.0)


def test_a_perfect_overlap_leaves_the_towers_and_the_prefill_of_the_last_picture() -> None:
    """Of 0.5 + 4 + 2 seconds for 4 pictures: 0.5 + 4 + 2 / 4."""
    off = case("all off", 6.5)
    assert overlap.bound_s(off, images=4) == pytest.approx(5.0)
    said = overlap.table([case("all on", 5.0), off], images=4)
    (line,) = [line for line in said.splitlines() if line.startswith("all on")]
    assert line.split() == ["all", "on", "5000", "4000", "2000", "23.1", "%", "100.0", "%"]


def test_times_are_compared_with_those_of_the_fewest_encoders() -> None:
    times = {1: {2: [asked(1.0)]}, 6: {2: [asked(0.5)]}}
    said = parallel_encode.table(times).splitlines()
    assert said[2].split() == ["6", "500", "(2.00)"]
    assert said[3].split() == ["published", "(1.6)"]
    assert said[4].split() == ["last*", f"({1.54 / 1.04:.2f})"]


def test_gaps_are_parted_by_whether_the_burst_touches_them() -> None:
    run = isolation.Run(
        topology="EPD", streams=[asked(1, 2, 5, 6, 7)], burst=[], began=3.0, ended=5.5
    )
    assert run.gaps_s(inside=True) == [3, 1]
    assert run.gaps_s(inside=False) == [1, 1]


def test_a_share_is_of_the_plain_way_right_before() -> None:
    size = MIB // ROW_BYTES * ROW_BYTES
    times = [(1.0, 0.5), (4.0, 3.0), (2.0, 1.0)]
    items = [
        {"bytes": size, "rows_s": rows, "plain_s": plain, "rows_cpu_s": 1.0, "plain_cpu_s": 1.0}
        for rows, plain in times
    ]
    found = _point("tcp", 1, items, at_once=1)
    assert (found["share"], found["best_share"]) == (0.5, 0.5)
    assert found["rows_bytes_per_s"] == size / 2.0
    several = [{**item, "bytes": 8 * size} for item in items]
    assert _point("tcp", 1, several, at_once=8)["rows_bytes_per_s"] == 8 * size / 2.0
