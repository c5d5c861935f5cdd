"""Rows that may come again, under what they were made of. Pure.

Least recently used goes first. Whoever uses an entry shares it; nothing here is ever written to.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Cache(Generic[K, V]):
    """Values are opaque; sizes are told. A capacity of 0 keeps nothing."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._kept: dict[K, tuple[V, int]] = {}  # least recently used first
        self.num_bytes = 0
        self.hits = 0
        self.misses = 0

    def get(self, key: K) -> V | None:
        """The value, now the most recently used. Counts a hit or a miss."""
        kept = self._kept.pop(key, None)
        if kept is None:
            self.misses += 1
            return None
        self._kept[key] = kept
        self.hits += 1
        return kept[0]

    def put(self, key: K, value: V, nbytes: int) -> None:
        """Keep it, unless it is larger than everything that may be kept."""
        if nbytes > self.capacity:
            return
        self._remove(key)
        self._kept[key] = (value, nbytes)
        self.num_bytes += nbytes
        while self.num_bytes > self.capacity:
            self._remove(next(iter(self._kept)))

    def check(self) -> None:
        """Assert what must hold between any two calls."""
        assert self.num_bytes == sum(nbytes for _, nbytes in self._kept.values())
        assert self.num_bytes <= self.capacity

    def _remove(self, key: K) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self.num_bytes -= kept[1]
