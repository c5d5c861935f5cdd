"""The worker's sign of life: heartbeats are answered while a step runs, with the step's age."""

from __future__ import annotations

import time

from epd.wire.links import Delivery
from epd.wire.messages import Heartbeat, HeartbeatReply


class Pulse:
    """Shared between the step thread, which beats, and the I/O thread, which answers."""

    def __init__(self) -> None:
        self.step_began: float | None = None
        self.gauges: dict[str, int] = {}
        self.heard: dict[str, float] = {}

    def answer(self, delivery: Delivery) -> object | None:
        """Runs on the I/O thread: heartbeats are answered however long a step takes."""
        if not isinstance(delivery.message, Heartbeat):
            return None
        now = time.monotonic()
        self.heard[delivery.sender] = now
        began = self.step_began
        return HeartbeatReply(
            sequence=delivery.message.sequence,
            step_age_ms=0 if began is None else int((now - began) * 1000),
            gauges=self.gauges,
        )
