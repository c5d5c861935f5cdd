"""Readings of /metrics."""

from __future__ import annotations

import pytest

from bench.serving.stages import parse, seconds_by_stage, total
from epd.observe import Metrics


def page(**gauges: int) -> str:
    metrics = Metrics()
    metrics.worker("encode-0", "encode", gauges)
    metrics.worker("encode-1", "encode", {"tower_ms": 100})
    metrics.worker("decode-0", "decode", {"forward_ms": gauges["tower_ms"], "requests": 3})
    return metrics.render().decode()


def test_milliseconds_of_a_stage_are_the_growth_over_all_its_workers() -> None:
    before, after = parse(page(tower_ms=500, step_age_ms=9)), parse(page(tower_ms=2500))
    assert seconds_by_stage(before, after) == {
        "encode": {"tower": pytest.approx(2.0)},
        "decode": {"forward": pytest.approx(2.0)},
    }


def test_what_is_no_total_is_left_out() -> None:
    found = seconds_by_stage({}, parse(page(tower_ms=1, step_age_ms=99)))
    assert "step_age" not in found["encode"]


def test_a_worker_that_was_not_there_before_counts_from_zero() -> None:
    assert seconds_by_stage({}, parse(page(tower_ms=900)))["encode"] == {
        "tower": pytest.approx(1.0)
    }


def test_the_growth_of_a_counter_that_nobody_reports_is_not_known() -> None:
    before, after = parse(page(tower_ms=1)), parse(page(tower_ms=4))
    assert total(before, after, "tower_ms") == 3
    assert total(before, after, "kv_bytes_sent") is None
