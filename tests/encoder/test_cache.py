"""Rows that may come again: least recently used goes first, by bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from epd.encoder.cache import Cache


def test_what_was_used_last_stays() -> None:
    cache: Cache[str, int] = Cache(10)
    for key in "ab":
        cache.put(key, 1, 5)
    assert cache.get("a") == 1
    cache.put("c", 1, 5)
    assert [cache.get(key) for key in "abc"] == [1, None, 1]
    assert (cache.hits, cache.misses, cache.num_bytes) == (3, 1, 10)


def test_what_is_larger_than_everything_is_not_kept_and_evicts_nothing() -> None:
    cache: Cache[str, int] = Cache(10)
    cache.put("a", 1, 10)
    cache.put("b", 2, 11)
    assert cache.get("a") == 1
    assert cache.get("b") is None


def test_without_capacity_nothing_is_kept() -> None:
    cache: Cache[str, int] = Cache(0)
    cache.put("a", 1, 1)
    assert cache.get("a") is None
    assert cache.num_bytes == 0


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 12), st.booleans())))
def test_bytes_never_exceed_the_capacity(calls: list[tuple[str, int, bool]]) -> None:
    cache: Cache[str, int] = Cache(10)
    for key, nbytes, put in calls:
        if put:
            cache.put(key, nbytes, nbytes)
            assert nbytes > 10 or cache.get(key) == nbytes
        else:
            cache.get(key)
        cache.check()
