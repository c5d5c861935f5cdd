"""Who steps now, where several seats share one thread of steps. Pure: seconds in, turns out.

One forward of the towers may take as long as dozens of steps of running streams. So a seat waits
while it has had more of the time than one behind it that has work: towers get half of a busy
process, and all of one where nothing is generated. The last seat never waits.
"""

from __future__ import annotations

from collections.abc import Sequence


class Turns:
    """Counts from the moment on from which more than one seat has work."""

    def __init__(self) -> None:
        self._spent: dict[int, float] = {}
        self._shared = False

    def due(self, busy: Sequence[bool]) -> list[int]:
        """Places of the seats that step in this turn; those without work may, too."""
        self._shared = sum(busy) > 1
        if not self._shared:
            self._spent.clear()
        return [place for place in range(len(busy)) if not self._waits(place, busy)]

    def took(self, place: int, seconds: float) -> None:
        """A step of that seat, which counts if another one had work."""
        if self._shared:
            self._spent[place] = self._of(place) + seconds

    def _waits(self, place: int, busy: Sequence[bool]) -> bool:
        behind = range(place + 1, len(busy))
        return any(busy[other] and self._of(place) > self._of(other) for other in behind)

    def _of(self, place: int) -> float:
        return self._spent.get(place, 0.0)
