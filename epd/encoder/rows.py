"""Bookkeeping of embedding rows: who is expected, who is kept, who goes first. Pure.

An item is expected from its submission until its rows are put or it fails. Rows that somebody waits
for are pinned; all others are a cache, the least recently used of which make room. Pinned rows may
exceed the capacity: evicting them would only have them encoded again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from epd.types import ItemKey

T = TypeVar("T")


@dataclass(slots=True)
class _Kept(Generic[T]):
    value: T
    nbytes: int
    pinned: bool


class RowStore(Generic[T]):
    """Rows under the item they belong to. Values are opaque; sizes are told."""

    def __init__(self, capacity: int, *, max_tombstones: int = 4096) -> None:
        self._capacity = capacity
        self._max_tombstones = max_tombstones
        self._expected: dict[ItemKey, bool] = {}  # whether it will be pinned
        self._kept: dict[ItemKey, _Kept[T]] = {}  # least recently used first
        self._tombstones: dict[ItemKey, None] = {}  # oldest first
        self.num_bytes = 0

    @property
    def num_expected(self) -> int:
        """Items submitted whose rows are not here yet."""
        return len(self._expected)

    @property
    def num_pinned(self) -> int:
        """Items that somebody waits for, with rows or without."""
        return sum(self._expected.values()) + sum(kept.pinned for kept in self._kept.values())

    def expect(self, item: ItemKey, *, pinned: bool) -> bool:
        """Announce an item. False for one that was dropped, is expected or has its rows."""
        if item in self._tombstones or item in self._expected or item in self._kept:
            return False
        self._expected[item] = pinned
        return True

    def expects(self, item: ItemKey) -> bool:
        """Whether the rows are still to come and still wanted."""
        return item in self._expected

    def fail(self, item: ItemKey) -> None:
        """No rows will come."""
        self._expected.pop(item, None)

    def put(self, item: ItemKey, value: T, nbytes: int) -> None:
        """Keep the rows of an expected item; of any other they are discarded."""
        pinned = self._expected.pop(item, None)
        if pinned is None:
            return
        self._kept[item] = _Kept(value, nbytes, pinned)
        self.num_bytes += nbytes
        self._make_room()

    def get(self, item: ItemKey) -> T | None:
        """The rows, now the most recently used; None when they are not (or no longer) here."""
        kept = self._kept.pop(item, None)
        if kept is None:
            return None
        self._kept[item] = kept
        return kept.value

    def pin(self, item: ItemKey) -> bool:
        """Keep the rows, from now or from their arrival, until unpin or drop. False: unknown."""
        return self._set_pinned(item, True)

    def unpin(self, item: ItemKey) -> bool:
        """Let the rows be evicted when room is needed."""
        known = self._set_pinned(item, False)
        self._make_room()
        return known

    def drop(self, item: ItemKey) -> None:
        """Forget the item now, and refuse it if it is announced again."""
        self._expected.pop(item, None)
        self._remove(item)
        self._tombstones.pop(item, None)
        self._tombstones[item] = None
        if len(self._tombstones) > self._max_tombstones:
            del self._tombstones[next(iter(self._tombstones))]

    def check(self) -> None:
        """Assert what must hold between any two calls."""
        assert self.num_bytes == sum(kept.nbytes for kept in self._kept.values())
        assert not self._expected.keys() & self._kept.keys()
        assert not self._tombstones.keys() & (self._expected.keys() | self._kept.keys())
        assert len(self._tombstones) <= self._max_tombstones
        if any(not kept.pinned for kept in self._kept.values()):
            assert self.num_bytes <= self._capacity

    def _set_pinned(self, item: ItemKey, pinned: bool) -> bool:
        if item in self._expected:
            self._expected[item] = pinned
        elif item in self._kept:
            self._kept[item].pinned = pinned
        else:
            return False
        return True

    def _make_room(self) -> None:
        loose = (item for item, kept in list(self._kept.items()) if not kept.pinned)
        while self.num_bytes > self._capacity and (item := next(loose, None)) is not None:
            self._remove(item)

    def _remove(self, item: ItemKey) -> None:
        kept = self._kept.pop(item, None)
        if kept is not None:
            self.num_bytes -= kept.nbytes
