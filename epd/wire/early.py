"""Messages that arrive before the membership has said who sends them.

Two workers learn of each other from the gateway at different moments; the quicker one may write at
once. It knows this node's incarnation, which strangers cannot guess, so its mail is kept a little
while instead of being lost. Pure: the caller brings the time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from epd.wire.links import Delivery

MAX_MESSAGES: Final = 256
MAX_BYTES: Final = 1 << 20


class Early:
    """Bounded in count, bytes and time, in order of arrival."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._kept: deque[tuple[float, int, Delivery]] = deque()
        self._num_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, delivery: Delivery, *, num_bytes: int, now: float) -> bool:
        """False: no room, or no grace is given."""
        room = len(self._kept) < MAX_MESSAGES and self._num_bytes + num_bytes <= MAX_BYTES
        if room and self._grace_s > 0:
            self._kept.append((now + self._grace_s, num_bytes, delivery))
            self._num_bytes += num_bytes
            return True
        return False

    def release(self, knows: Callable[[str, str], bool]) -> list[Delivery]:
        """Those whose sender is known by now."""
        return self._remove(lambda _, delivery: knows(delivery.sender, delivery.incarnation))

    def expire(self, now: float) -> list[Delivery]:
        """Those that waited in vain."""
        return self._remove(lambda until, _: until <= now)

    def next_expiry(self) -> float | None:
        """When expire() has something to do, in the caller's time."""
        return self._kept[0][0] if self._kept else None

    def _remove(self, leaves: Callable[[float, Delivery], bool]) -> list[Delivery]:
        kept, self._kept = self._kept, deque()
        found: list[Delivery] = []
        for until, num_bytes, delivery in kept:
            if leaves(until, delivery):
                found.append(delivery)
                self._num_bytes -= num_bytes
            else:
                self._kept.append((until, num_bytes, delivery))
        return found
