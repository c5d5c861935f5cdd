"""Where the time of steps goes, by phase. Never waits for a device to find out."""

from __future__ import annotations

from time import perf_counter


class Phases:
    """Seconds of each phase, added up over all steps."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(("schedule", "plan", "forward", "sample", "other"), 0.0)
        self._since = 0.0

    def begin(self) -> None:
        """A step begins."""
        self._since = perf_counter()

    def ended(self, phase: str) -> None:
        """What was done since the last call belongs to `phase`."""
        now = perf_counter()
        self.seconds[phase] += now - self._since
        self._since = now
