"""Bookkeeping of prepared items, from the intake to the end of their tower forward. Pure.

Some are held: their KV may be cached, so their towers wait until somebody asks. Held ones alone
never fill the capacity, so whoever waits for room gets it as the towers go on.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from epd.types import ItemKey

T = TypeVar("T")


class PreparedItems(Generic[T]):
    """How many bytes prepared items take, and which of them wait to be asked for."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._sizes: dict[ItemKey, int] = {}
        self._to_hold: set[ItemKey] = set()
        self._held: dict[ItemKey, T] = {}  # oldest first

    @property
    def num_bytes(self) -> int:
        """All of them together."""
        return sum(self._sizes.values())

    @property
    def num_held(self) -> int:
        """Items whose towers wait to be asked for."""
        return len(self._held)

    @property
    def full(self) -> bool:
        """Nothing more should be prepared now."""
        return self.num_bytes >= self._capacity

    def hold(self, item: ItemKey) -> None:
        """When it is prepared it is to be held, unless run() or end() comes first."""
        self._to_hold.add(item)

    def is_to_hold(self, item: ItemKey) -> bool:
        """Whether it is to be held when it is prepared."""
        return item in self._to_hold

    def unhold(self, item: ItemKey) -> None:
        """It is not to be held; one that is held already stays so until run()."""
        self._to_hold.discard(item)

    def prepared(self, item: ItemKey, num_bytes: int) -> None:
        """It takes memory from now on."""
        self._sizes[item] = num_bytes

    def take(self, item: ItemKey, value: T) -> list[tuple[ItemKey, T]]:
        """A prepared item goes on: what the towers may have now, oldest first.

        Itself, nothing when it is held, or held ones that there is no room for any more.
        """
        if item not in self._to_hold:
            return [(item, value)]
        self._to_hold.discard(item)
        self._held[item] = value
        over: list[tuple[ItemKey, T]] = []
        while sum(self._sizes[held] for held in self._held) >= self._capacity:
            oldest = next(iter(self._held))
            over.append((oldest, self._held.pop(oldest)))
        return over

    def run(self, item: ItemKey) -> list[tuple[ItemKey, T]]:
        """It is asked for: itself where it was held, else nothing and it will not be held."""
        self._to_hold.discard(item)
        return [(item, self._held.pop(item))] if item in self._held else []

    def end(self, item: ItemKey) -> None:
        """It was encoded, or dropped, or failed: its memory is free."""
        self._to_hold.discard(item)
        self._held.pop(item, None)
        self._sizes.pop(item, None)
