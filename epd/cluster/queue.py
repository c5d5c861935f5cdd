"""The line for KV: who stands where, and how long a request would wait, as far as workers have said
how often they have room."""

from __future__ import annotations

from epd.cluster.requests import Request
from epd.errors import Overloaded

PLACES = 1024
"""Requests that came before one and that it goes before, for a step of priority less."""


class Queue:
    """`max_wait_s`: longer than this nobody is to wait."""

    def __init__(self, max_wait_s: float) -> None:
        self._max_wait_s = max_wait_s
        self._intervals_ms: dict[str, int] = {}

    def pace(self, name: str, interval_ms: int) -> None:
        """A worker has room for one more request so often; 0: it cannot say, or is gone."""
        if interval_ms:
            self._intervals_ms[name] = interval_ms
        else:
            self._intervals_ms.pop(name, None)

    def refusal(self, ahead: int) -> Overloaded | None:
        """Why a request with so many before it is not to wait. Who cannot be judged may."""
        rate = sum(1 / interval for interval in self._intervals_ms.values())
        if not rate:
            return None
        wait_s = (ahead + 1) / rate / 1000
        if wait_s <= self._max_wait_s:
            return None
        text = f"{ahead} requests wait for KV, for {wait_s:.0f} s as it seems"
        return Overloaded(text, retry_after_s=wait_s - self._max_wait_s)


def place_in_line(request: Request) -> tuple[bool, int]:
    """Who lost a worker, then by arrival and priority: as in vLLM the lower one is earlier."""
    behind = PLACES * request.answer.submission.priority
    return not request.deaths, request.order + behind
