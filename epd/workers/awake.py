"""Time in which this process ran: what happened while it was stopped nobody could tell it."""

from __future__ import annotations


class Awake:
    """Seconds that count as silence of others.

    Of the time between two readings at most `most_s` counts. A process that was stopped, or a
    machine that was paused, reads late, and finds everybody silent although nobody was.
    """

    def __init__(self, most_s: float) -> None:
        self._most = most_s
        self._seconds = 0.0
        self._read_at: float | None = None

    def read(self, now: float) -> float:
        """The seconds until `now`, a reading of the monotonic clock."""
        if self._read_at is not None:
            self._seconds += min(now - self._read_at, self._most)
        self._read_at = now
        return self._seconds
