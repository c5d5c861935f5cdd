"""Ended keys are remembered, and the memory is bounded."""

from __future__ import annotations

from epd.handoff import Tombstones


def test_a_buried_key_stays_buried() -> None:
    """Others are not."""
    stones = Tombstones()
    stones.add("a")
    assert "a" in stones
    assert "b" not in stones


def test_burying_twice_keeps_one_stone() -> None:
    """A repeated cancel changes nothing."""
    stones = Tombstones()
    stones.add("a")
    stones.add("a")
    assert len(stones) == 1


def test_the_oldest_is_forgotten_beyond_the_limit() -> None:
    """Years of requests take no more memory than `limit` keys."""
    stones = Tombstones(limit=3)
    for key in range(1000):
        stones.add(key)
    assert len(stones) == 3
    assert [key for key in range(1000) if key in stones] == [997, 998, 999]


def test_a_key_buried_again_counts_as_new() -> None:
    """The one that is still talked about outlives the others."""
    stones = Tombstones(limit=2)
    for key in ("a", "b", "a", "c"):
        stones.add(key)
    assert "a" in stones
    assert "b" not in stones
