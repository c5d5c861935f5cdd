"""Numbers made of arrivals that are written here."""

from __future__ import annotations

import json

from bench.topologies.report import Point, summary, table
from epd.bench.records import Record
from epd.bench.result import raw


def record(*arrivals: tuple[float, int], sent: float = 1.0, error: str = "") -> Record:
    ended = arrivals[-1][0] if arrivals else sent
    return Record(sent=sent, arrivals=list(arrivals), ended=ended, error=error)


def point(*records: Record, stages: dict[str, dict[str, float]] | None = None) -> Point:
    return Point(
        topology="EPD", images=0, concurrency=2, records=list(records), stages=stages or {}
    )


def test_throughput_counts_the_tokens_of_answers_that_came_whole() -> None:
    found = summary(point(record((1.0, 1), (2.0, 3)), record((4.0, 5), error="503")))
    assert (found["requests"], found["errors"]) == (2, 1)
    assert found["seconds"] == 4.0
    assert found["tokens_per_s"] == 1.0


def test_a_point_of_which_everything_failed_has_no_times_and_says_why() -> None:
    failed = point(record(error="400 no such field"))
    assert summary(failed)["ttft_s"] == {"p50": None, "p90": None, "p99": None}
    lines = table([failed]).splitlines()
    assert "n/a" in lines[1]
    assert lines[-1] == "EPD images=0 clients=2: error: 400 no such field"


def test_the_table_says_where_the_time_went_or_that_it_is_not_known() -> None:
    known = point(record((2.0, 1)), stages={"encode": {"tower": 1.5}, "decode": {}})
    assert "EPD images=0 clients=2: encode tower 1.50 s" in table([known])
    assert "EPD images=0 clients=2: n/a" in table([point(record((2.0, 1)))])


def test_raw_records_are_json_with_every_arrival() -> None:
    found = json.loads(json.dumps(raw(record((1.123456, 1), (2.0, 2)))))
    assert found["arrivals"] == [[1.12346, 1], [2.0, 2]]
    assert "text" not in found
