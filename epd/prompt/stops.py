"""Finds stop strings in text that arrives in pieces, holding back what may become one."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """One answer's stop strings. How the text is cut into pieces never changes the result.

    `shows`: the one that was found is text, too.
    """

    def __init__(self, stops: Sequence[str], *, shows: bool = False) -> None:
        self._shows = shows
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.found: str | None = None

    def feed(self, text: str) -> str:
        """What may be shown now. After a match: the text up to it, and from then on nothing."""
        if not self._stops:
            return text
        if self.found is not None:
            return ""
        self._held += text
        if match := self._first_match():
            start, self.found = match
            end = start + len(self.found) if self._shows else start
            shown, self._held = self._held[:end], ""
            return shown
        keep = self._num_undecided()
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown

    def finish(self) -> str:
        """The text ended: what was held back is text after all."""
        shown, self._held = self._held, ""
        return shown

    def _first_match(self) -> tuple[int, str] | None:
        """The match that ends first, as if the text came character by character."""
        found = [(at + len(s), at, s) for s in self._stops if (at := self._held.find(s)) >= 0]
        if not found:
            return None
        _, start, stop = min(found)
        return start, stop

    def _num_undecided(self) -> int:
        """Length of the longest end of the text that begins a stop string."""
        for size in range(min(len(self._held), max(map(len, self._stops), default=1) - 1), 0, -1):
            tail = self._held[-size:]
            if any(stop.startswith(tail) for stop in self._stops):
                return size
        return 0
