"""When work is of no more use, by key. Pure: the time comes in, in seconds of a monotonic clock."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from itertools import count
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Deadlines(Generic[K]):
    """Remaining milliseconds come from other machines, so that no two clocks are compared."""

    def __init__(self) -> None:
        self._ends: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []  # may name what was forgotten since
        self._number = count()

    def set(self, key: K, remaining_ms: int, now: float) -> None:
        """It is of use for so long; 0: for ever."""
        if remaining_ms > 0:
            self._ends[key] = now + remaining_ms / 1000
            heapq.heappush(self._heap, (self._ends[key], next(self._number), key))

    def passed(self, key: K, now: float) -> bool:
        """Nobody waits for it any more."""
        end = self._ends.get(key)
        return end is not None and end <= now

    def expire(self, now: float) -> list[K]:
        """Those whose time is over, earliest first; they are forgotten."""
        over: list[K] = []
        while self._heap and self._heap[0][0] <= now:
            end, _, key = heapq.heappop(self._heap)
            if self._ends.get(key) == end:
                del self._ends[key]
                over.append(key)
        return over

    def forget(self, key: K) -> None:
        """It ended in time, or has none."""
        self._ends.pop(key, None)
        if len(self._heap) > 2 * len(self._ends) + 64:
            self._heap = [entry for entry in self._heap if self._ends.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)

    def __len__(self) -> int:
        return len(self._ends)
