"""Prepared items: who is held, who goes on, and when there is room for one more."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from epd.encoder.prepared import PreparedItems
from tests.encoder.bench import key


def test_an_item_that_nobody_holds_goes_on() -> None:
    items: PreparedItems[str] = PreparedItems(100)
    items.prepared(key(0), 10)
    assert items.take(key(0), "a") == [(key(0), "a")]
    assert (items.num_bytes, items.num_held) == (10, 0)
    items.end(key(0))
    assert items.num_bytes == 0


def test_a_held_item_goes_on_once_when_it_is_asked_for() -> None:
    items: PreparedItems[str] = PreparedItems(100)
    items.hold(key(0))
    items.prepared(key(0), 10)
    assert items.take(key(0), "a") == []
    assert items.run(key(0)) == [(key(0), "a")]
    assert items.run(key(0)) == []


def test_an_item_asked_for_before_it_is_prepared_is_not_held() -> None:
    items: PreparedItems[str] = PreparedItems(100)
    items.hold(key(0))
    assert items.run(key(0)) == []
    items.prepared(key(0), 10)
    assert items.take(key(0), "a") == [(key(0), "a")]


def test_held_ones_over_the_capacity_go_on_oldest_first() -> None:
    """What is left leaves room, so that intake goes on when the towers have."""
    items: PreparedItems[str] = PreparedItems(100)
    taken = []
    for index, size in enumerate((40, 50, 30)):
        items.hold(key(index))
        items.prepared(key(index), size)
        taken += items.take(key(index), "abc"[index])
    assert taken == [(key(0), "a")]
    assert items.full
    items.end(key(0))
    assert not items.full


def test_a_held_item_larger_than_the_capacity_goes_on_at_once() -> None:
    items: PreparedItems[str] = PreparedItems(100)
    items.hold(key(0))
    items.prepared(key(0), 100)
    assert items.take(key(0), "a") == [(key(0), "a")]


def test_an_item_that_ends_while_it_is_held_is_gone() -> None:
    items: PreparedItems[str] = PreparedItems(100)
    items.hold(key(0))
    items.prepared(key(0), 10)
    items.take(key(0), "a")
    items.end(key(0))
    assert items.run(key(0)) == []
    assert (items.num_bytes, items.num_held) == (0, 0)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 60), st.booleans()), max_size=40))
def test_when_all_that_runs_has_ended_there_is_room(steps: list[tuple[int, int, bool]]) -> None:
    """So nobody who waits for room waits for ever, whatever is held."""
    items: PreparedItems[int] = PreparedItems(100)
    for attempt, (index, size, hold) in enumerate(steps):
        item = key(index, attempt)
        if hold:
            items.hold(item)
        items.prepared(item, size)
        for ready, _ in items.take(item, attempt):
            items.end(ready)
        assert not items.full
