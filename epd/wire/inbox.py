"""The bounded queue between the I/O thread and the step thread."""

from __future__ import annotations

from collections import deque
from threading import Condition


class Inbox:
    """Many producers, one consumer. A full inbox refuses: backpressure, never a block."""

    def __init__(self, *, capacity: int = 4096) -> None:
        self._capacity = capacity
        self._events: deque[object] = deque()
        self._changed = Condition()
        self._woken = False

    @property
    def full(self) -> bool:
        """Whether put() would refuse now."""
        return len(self._events) >= self._capacity

    def put(self, event: object) -> bool:
        """Any thread. False: full, nothing was added."""
        with self._changed:
            if len(self._events) >= self._capacity:
                return False
            self._events.append(event)
            self._changed.notify()
            return True

    def take(self, *, wait: bool, timeout: float | None = None) -> list[object]:
        """The consumer's thread: all there is, oldest first.

        With `wait` it sleeps until there is something, wake() was called or `timeout` seconds
        have passed; so it may return nothing.
        """
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._events or self._woken, timeout)
            self._woken = False
            events = list(self._events)
            self._events.clear()
            return events

    def wake(self) -> None:
        """Any thread, signal handlers' helper threads too: end the current or the next wait."""
        with self._changed:
            self._woken = True
            self._changed.notify()
