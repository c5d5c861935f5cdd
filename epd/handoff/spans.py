"""A set of integers kept as disjoint half-open spans: which rows have landed."""

from __future__ import annotations


class Spans:
    """Grows only. `add` is linear in the number of holes, which stays tiny in practice."""

    def __init__(self) -> None:
        self._spans: list[tuple[int, int]] = []

    @property
    def count(self) -> int:
        """How many integers are inside."""
        return sum(end - start for start, end in self._spans)

    @property
    def prefix(self) -> int:
        """The first integer >= 0 that is missing."""
        return self._spans[0][1] if self._spans and self._spans[0][0] == 0 else 0

    def overlaps(self, start: int, end: int) -> bool:
        """True when any of [start, end) is inside."""
        return any(max(a, start) < min(b, end) for a, b in self._spans)

    def add(self, start: int, end: int) -> None:
        """Insert [start, end) and join neighbours."""
        if start >= end:
            return
        joined = [(a, b) for a, b in self._spans if b < start or a > end]
        touching = [(a, b) for a, b in self._spans if b >= start and a <= end]
        low = min([start, *(a for a, _ in touching)])
        high = max([end, *(b for _, b in touching)])
        self._spans = sorted([*joined, (low, high)])

    def missing(self, start: int, end: int) -> list[tuple[int, int]]:
        """The parts of [start, end) that are not inside."""
        holes = []
        for a, b in self._spans:
            if a > start:
                holes.append((start, min(a, end)))
            start = max(start, b)
            if start >= end:
                return [hole for hole in holes if hole[0] < hole[1]]
        return [hole for hole in [*holes, (start, end)] if hole[0] < hole[1]]
