"""Who steps now, where several seats share one thread of steps. Pure: seconds in, turns out.

One forward of the towers may take as long as dozens of steps of running streams. So a seat waits
while it has had more than its share of the time: every request counts alike, those whose items wait
for a tower and those that generate, but towers get a quarter of a busy process at least and half at
most, and all of one where nothing is generated. The last seat never waits.

A device may still be at a step that the thread has left. What that takes is not known yet, so the
seat waits until it is, and where nothing else has work, it is one step ahead of the device at most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

LEAST, MOST = 0.25, 0.5
"""Shares of the towers."""

MOST_OPEN = 2
"""Steps of a seat that a device may have before it, the one that it is at among them."""


class Turns:
    """Counts from the moment on from which more than one seat has work."""

    def __init__(self) -> None:
        self._spent: dict[int, float] = {}
        self._open: Counter[int] = Counter()
        self._requests: Sequence[int] = ()

    def due(self, requests: Sequence[int]) -> list[int]:
        """Places of the seats that step in this turn; those without work may, too.

        `requests`: how many each seat has work for.
        """
        self._requests = requests
        if not self._shared:
            self._spent.clear()
        return [place for place in range(len(requests)) if not self._waits(place)]

    @property
    def _shared(self) -> bool:
        return sum(map(bool, self._requests)) > 1

    def began(self, place: int) -> None:
        """That seat's step is asked for; took() follows when it is over."""
        self._open[place] += 1

    def took(self, place: int, seconds: float) -> None:
        """A step of that seat, which counts if another one has work."""
        self._open[place] -= 1
        if self._shared:
            self._spent[place] = self._of(place) + seconds / self._share(place)

    def _share(self, place: int) -> float:
        """Of a busy process."""
        last = len(self._requests) - 1
        first = sum(self._requests[:last]) / sum(self._requests)
        towers = min(MOST, max(LEAST, first))
        return 1 - towers if place == last else towers

    def _waits(self, place: int) -> bool:
        behind = range(place + 1, len(self._requests))
        if self._open[place] >= MOST_OPEN:
            return bool(behind)
        return any(
            self._requests[other] and (self._open[place] or self._of(place) > self._of(other))
            for other in behind
        )

    def _of(self, place: int) -> float:
        """Time had, over what was due."""
        return self._spent.get(place, 0.0)
