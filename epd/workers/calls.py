"""Requests that a gateway answers, from arrival to the last word, and those that ended last."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from typing import Any

from epd.cluster import asked_as
from epd.errors import EpdError, NotFound, Overloaded
from epd.observe import Metrics, PassedOn, Path, Traces, shown
from epd.workers import paths
from epd.workers.live_call import LiveCall

log = logging.getLogger(__name__)

RECENT = 128
"""Requests that have ended, and can be shown with their paths."""


class Calls:
    """`most`: how many at once; `media_bytes`: of inline media that all of them may hold."""

    def __init__(
        self, metrics: Metrics, traces: Traces | None, *, most: int, media_bytes: int
    ) -> None:
        self._metrics = metrics
        self._traces = traces or PassedOn()
        self._most = most
        self._most_media_bytes = media_bytes
        self._running: dict[str, LiveCall] = {}
        self._ended: deque[tuple[Path, str]] = deque(maxlen=RECENT)
        self.media_bytes = 0

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._running

    def __getitem__(self, request_id: str) -> LiveCall:
        return self._running[request_id]

    def check_room(self) -> None:
        """Overloaded: too many run."""
        if len(self._running) >= self._most:
            raise Overloaded(f"{len(self._running)} requests are waiting already")

    def begin(self, call: LiveCall, traceparent: str) -> None:
        """From here on it has to be ended. Overloaded: its media are too large beside others'."""
        held = self.media_bytes + call.media_bytes
        if held > self._most_media_bytes:
            raise Overloaded("too much inline media is waiting already")
        self.media_bytes = held
        call.path.traceparent = self._traces.begin(traceparent)
        self._running[call.request_id] = call

    def end(self, request_id: str, status: str) -> LiveCall:
        """Nothing more comes of it."""
        call = self._running.pop(request_id)
        self.media_bytes -= call.media_bytes
        if call.timer is not None:
            call.timer.cancel()
        call.path.close(time.monotonic())
        self._metrics.request(status)
        self._metrics.path(call.path)
        self._traces.end(call.path, status)
        self._ended.append((call.path, status))
        log.debug("request ended", extra={"request": request_id, "status": status})
        return call

    def fail(self, request_id: str, error: EpdError) -> None:
        """End it; whoever reads it is told why."""
        self.end(request_id, str(error.status)).put(error)
        self._metrics.failure(error.code)
        what = {"request": request_id, "status": error.status, "code": error.code}
        log.info("request failed: %s", error.message, extra=what)

    def ids(self) -> list[str]:
        """Of those that run."""
        return list(self._running)

    def heard(self, sender: str, message: object) -> None:
        """Note on its path what a worker said of a request."""
        if call := self._running.get(paths.request_of(message) or ""):
            paths.heard(call.path, sender, message, time.monotonic())

    def told(self, to: str, message: object) -> None:
        """Note on its path what a worker is told of a request."""
        if call := self._running.get(paths.request_of(message) or ""):
            paths.told(call.path, to, message)

    def remaining_ms(self, request_id: str) -> int:
        """Of the time of a request, or of one that a worker's id of it was made from; at least 1,
        for the end has an event of its own."""
        left = self._running[asked_as(request_id)].ends - time.monotonic()
        return max(1, int(left * 1000))

    def age_s(self, request_id: str) -> float:
        """NotFound: it does not run here."""
        call = self._running.get(request_id)
        if call is None:
            raise NotFound(f"no request {request_id[:200]!r} is running here")
        return round(time.monotonic() - call.path.began, 3)

    def pending(self) -> Counter[str]:
        """What the running ones wait for, and how many do."""
        return Counter(kind for call in self._running.values() for kind in call.path.pending)

    def recent(self) -> list[dict[str, Any]]:
        """The paths of the last ones that have ended, the oldest first, and how long ago each
        came."""
        now = time.monotonic()
        return [
            {"age_ms": round(1000 * (now - path.began), 3), "status": status, **shown(path)}
            for path, status in self._ended
        ]
