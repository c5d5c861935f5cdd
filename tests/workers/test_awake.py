"""Silence counts only while this process ran."""

from __future__ import annotations

from epd.workers.awake import Awake


def test_time_counts_while_it_is_read_again_and_again() -> None:
    awake = Awake(2.0)
    assert [awake.read(100.0 + second) for second in range(8)] == list(range(8))


def test_a_pause_counts_as_no_more_than_its_bound() -> None:
    """Whoever was heard before it has the rest of the time to say something."""
    awake = Awake(2.0)
    awake.read(0.0)
    heard = awake.read(1.0)
    assert awake.read(1000.0) - heard == 2.0
    assert awake.read(1001.0) - heard == 3.0
