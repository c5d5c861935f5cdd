"""Numbers made of arrivals that are written here."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epd.bench import metrics
from epd.bench.metrics import Spread, percentile
from epd.bench.records import Record

VALUES = st.lists(st.floats(0, 1e6), min_size=1, max_size=30)


def record(*arrivals: tuple[float, int], sent: float = 1.0, error: str = "") -> Record:
    ended = arrivals[-1][0] if arrivals else sent
    return Record(sent=sent, arrivals=list(arrivals), ended=ended, error=error)


@given(VALUES, st.floats(0, 100))
def test_percentiles_are_those_of_numpy(values: list[float], rank: float) -> None:
    assert percentile(values, rank) == pytest.approx(np.percentile(values, rank))


@given(VALUES)
def test_a_spread_is_that_of_the_standard_library(values: list[float]) -> None:
    found = Spread.of([*values, None], scale=2.0)
    assert found.mean == pytest.approx(2 * statistics.fmean(values))
    assert found.median == pytest.approx(2 * statistics.median(values))
    assert found.std == pytest.approx(2 * statistics.pstdev(values), abs=1e-3)
    assert found.max == 2 * max(values)


def test_of_nothing_nothing_is_known() -> None:
    assert Spread.of([]).mean is None
    assert percentile([], 50) is None


def test_the_first_token_counts_from_when_its_request_was_sent() -> None:
    assert metrics.first_token_s(record((1.5, 1), (1.6, 1))) == pytest.approx(0.5)
    assert metrics.first_token_s(record()) is None


def test_time_per_token_leaves_the_first_out_and_ends_with_the_last_event() -> None:
    found = record((1.5, 1), (1.7, 1), (1.9, 1))
    assert metrics.per_token_s(found) == pytest.approx(0.2)
    found.ended = 2.1  # the event with the usage
    assert metrics.per_token_s(found) == pytest.approx(0.3)
    assert metrics.per_token_s(record((1.5, 1))) is None


def test_the_servers_count_of_tokens_goes_before_the_number_of_events() -> None:
    found = record((1.5, 1), (1.9, 1))
    found.completion_tokens = 5
    assert metrics.per_token_s(found) == pytest.approx(0.1)


def test_tokens_that_come_together_share_their_wait() -> None:
    assert metrics.gaps_s(record((2.0, 1), (2.4, 2), (2.5, 1))) == pytest.approx([0.2, 0.2, 0.1])


def test_goodput_counts_what_met_every_goal_and_a_failure_meets_none() -> None:
    """TTFT of 500 ms, TPOT of 100 and 300 ms, in 4 seconds."""
    records = [
        record((1.5, 1), (1.6, 1)),
        record((1.5, 1), (1.8, 1)),
        record((1.5, 1)),
        record((1.1, 1), error="HTTP 500: x"),
    ]
    found = metrics.goodput(records, {"ttft": 500.0, "tpot": 200.0, "e2el": 1e9}, seconds=4.0)
    assert found.per_s == 0.5
    assert found.share == 0.5
    assert found.share_by_goal == {"ttft": 0.75, "tpot": 0.5, "e2el": 0.75}
    assert metrics.goodput(records, {"ttft": 400.0}, seconds=4.0).per_s == 0.0


def test_the_most_at_once_are_those_that_overlap() -> None:
    records = [record((2.0, 1), sent=1.0), record((3.0, 1), sent=1.5), record((4.0, 1), sent=2.5)]
    assert metrics.most_at_once(records) == 2
    assert metrics.most_at_once([record((2.0, 1), sent=1.0), record((3.0, 1), sent=2.0)]) == 1
    assert metrics.most_at_once([]) == 0


def test_the_best_second_begins_with_the_first_request() -> None:
    records = [record((1.2, 1), (1.9, 2), (2.1, 1)), record((2.5, 1), sent=2.0)]
    assert metrics.most_tokens_in_a_second(records) == 3
    assert metrics.most_tokens_in_a_second([]) == 0


def test_stages_are_the_longest_of_all_items() -> None:
    found = record()
    found.path = {
        "items": [
            {"ms": {"encode": 5.0, "transfer": 1.0}},
            {"ms": {"encode": 7.0, "fetch": 2.0}},
        ],
        "prefill": {"ms": {"prefill": 3.0, "transfer": 0.5}},
        "decode": {"ms": {"decode": 9.0}},
    }
    assert metrics.stage_ms(found) == {
        "encode.encode": 7.0,
        "encode.fetch": 2.0,
        "prefill.transfer": 1.0,
        "prefill.prefill": 3.0,
        "decode.decode": 9.0,
    }
    assert metrics.stage_ms(record()) == {}


def test_failures_are_counted_by_cause() -> None:
    records = [record(error=error) for error in ("HTTP 429: a", "timeout: b", "HTTP 429: c", "")]
    assert metrics.failures(records) == {"HTTP 429": 2, "timeout": 1}


def test_lateness_is_never_below_nothing() -> None:
    assert metrics.lateness_s(Record(sent=2.0, due=1.5)) == 0.5
    assert math.copysign(1, metrics.lateness_s(Record(sent=1.0, due=1.5))) == 1
