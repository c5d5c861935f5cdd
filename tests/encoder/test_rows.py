"""Bookkeeping of rows: single claims first, then any order of events against a plain model."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from epd.encoder.rows import RowStore
from epd.types import ItemKey


def key(index: int) -> ItemKey:
    """An item."""
    return ItemKey("r", index, 0)


def stored(store: RowStore[str], index: int, nbytes: int, *, pinned: bool = False) -> None:
    """Announce an item and put its rows."""
    assert store.expect(key(index), pinned=pinned)
    store.put(key(index), f"rows {index}", nbytes)


def present(store: RowStore[str], indices: range) -> list[int]:
    """Which have rows, asked from the last to the first."""
    return [index for index in reversed(indices) if store.get(key(index)) is not None][::-1]


def test_the_least_recently_used_rows_go_first() -> None:
    """Reading rows counts as use."""
    store: RowStore[str] = RowStore(30)
    for index in range(3):
        stored(store, index, 10)
    assert store.get(key(0)) == "rows 0"
    stored(store, 3, 10)
    assert present(store, range(4)) == [0, 2, 3]


def test_pinned_rows_stay_beyond_the_capacity() -> None:
    """And leave nothing to others until they are released."""
    store: RowStore[str] = RowStore(20)
    stored(store, 0, 20, pinned=True)
    stored(store, 1, 20, pinned=True)
    stored(store, 2, 5)
    assert present(store, range(3)) == [0, 1]
    assert store.num_bytes == 40
    store.unpin(key(0))
    assert present(store, range(3)) == [1]


def test_a_pin_may_come_before_the_rows_and_be_taken_back() -> None:
    """A pull can be faster than the tower."""
    store: RowStore[str] = RowStore(10)
    assert store.expect(key(0), pinned=False)
    assert store.pin(key(0))
    assert store.num_pinned == 1
    store.put(key(0), "rows", 20)
    assert store.get(key(0)) == "rows"
    assert store.unpin(key(0))
    assert store.get(key(0)) is None
    assert not store.pin(key(0))
    assert not store.unpin(key(0))


def test_tombstones_are_bounded_and_the_oldest_goes_first() -> None:
    """A forgotten tombstone lets its key in again; nothing else changes."""
    store: RowStore[str] = RowStore(10, max_tombstones=2)
    for index in range(3):
        store.drop(key(index))
    store.drop(key(1))
    assert store.expect(key(0), pinned=False)
    assert not store.expect(key(1), pinned=False)
    assert not store.expect(key(2), pinned=False)


CAPACITY = 10
MAX_TOMBSTONES = 3
KEYS = st.integers(0, 5).map(key)


class AnyOrder(RuleBasedStateMachine):
    """Sets and lists that say the same in the most naive way."""

    def __init__(self) -> None:
        super().__init__()
        self.store: RowStore[int] = RowStore(CAPACITY, max_tombstones=MAX_TOMBSTONES)
        self.expected: set[ItemKey] = set()
        self.pinned: set[ItemKey] = set()
        self.rows: list[tuple[ItemKey, int, int]] = []  # item, value, size; oldest use first
        self.dropped: list[ItemKey] = []
        self.clock = 0

    def evict(self) -> None:
        """One at a time from the oldest use, while it is too much."""
        for row in list(self.rows):
            if sum(nbytes for *_, nbytes in self.rows) <= CAPACITY:
                return
            if row[0] not in self.pinned:
                self.rows.remove(row)

    def forget(self, item: ItemKey) -> None:
        """Out of everything but the tombstones."""
        self.expected.discard(item)
        self.rows = [row for row in self.rows if row[0] != item]
        self.pinned.discard(item)

    def known(self, item: ItemKey) -> bool:
        """On its way or here."""
        return item in self.expected or any(row[0] == item for row in self.rows)

    @rule(item=KEYS, pinned=st.booleans())
    def expect(self, item: ItemKey, pinned: bool) -> None:
        """A job."""
        new = not self.known(item) and item not in self.dropped
        assert self.store.expect(item, pinned=pinned) == new
        if new:
            self.expected.add(item)
            if pinned:
                self.pinned.add(item)

    @rule(item=KEYS, nbytes=st.integers(0, 12))
    def put(self, item: ItemKey, nbytes: int) -> None:
        """Rows, wanted or late."""
        self.clock += 1
        self.store.put(item, self.clock, nbytes)
        if item in self.expected:
            self.expected.remove(item)
            self.rows.append((item, self.clock, nbytes))
            self.evict()
            self.pinned = {item for item in self.pinned if self.known(item)}

    @rule(item=KEYS)
    def fail(self, item: ItemKey) -> None:
        """No rows; a late failure of something already here changes nothing."""
        self.store.fail(item)
        if item in self.expected:
            self.forget(item)

    @rule(item=KEYS)
    def get(self, item: ItemKey) -> None:
        """A read."""
        row = next((row for row in self.rows if row[0] == item), None)
        assert self.store.get(item) == (None if row is None else row[1])
        if row is not None:
            self.rows.remove(row)
            self.rows.append(row)

    @rule(item=KEYS)
    def pin(self, item: ItemKey) -> None:
        """A pull."""
        assert self.store.pin(item) == self.known(item)
        if self.known(item):
            self.pinned.add(item)

    @rule(item=KEYS)
    def unpin(self, item: ItemKey) -> None:
        """A release."""
        assert self.store.unpin(item) == self.known(item)
        self.pinned.discard(item)
        self.evict()

    @rule(item=KEYS)
    def drop(self, item: ItemKey) -> None:
        """The consumer left."""
        self.store.drop(item)
        self.forget(item)
        self.dropped = [*(old for old in self.dropped if old != item), item][-MAX_TOMBSTONES:]

    @invariant()
    def agree(self) -> None:
        """After every event."""
        self.store.check()
        assert self.store.num_expected == len(self.expected)
        assert self.store.num_pinned == len(self.pinned)
        assert self.store.num_bytes == sum(nbytes for *_, nbytes in self.rows)
        for index in range(6):
            assert self.store.expects(key(index)) == (key(index) in self.expected)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=100, stateful_step_count=40)
