"""How often room becomes free, learnt from how long requests held it. Pure."""

from __future__ import annotations

from epd.types import RequestKey

FADE = 0.9
"""What one request leaves of the weight of earlier ones."""


class Pace:
    """Requests that hold room, and how long those before them did."""

    def __init__(self) -> None:
        self._began: dict[RequestKey, float] = {}
        self._held_s = 0.0
        self._num = 0.0

    def began(self, request: RequestKey, now: float) -> None:
        """It holds room from now on."""
        self._began[request] = now

    def ended(self, request: RequestKey, now: float) -> None:
        """It has given it back; unknown ones are ignored."""
        began = self._began.pop(request, None)
        if began is not None:
            self._held_s = FADE * self._held_s + now - began
            self._num = FADE * self._num + 1

    def next_ms(self) -> int:
        """Between one that gives room back and the next; 0 where nothing was learnt yet."""
        if not self._num or not self._began:
            return 0
        return max(1, int(1000 * self._held_s / self._num / len(self._began)))
