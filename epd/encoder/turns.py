"""Queues between threads whose order a policy decides: of jobs, and before a room for a few."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Generic, TypeVar

from epd.encoder.waiting import Policy, Waiting

T = TypeVar("T")


class Jobs(Generic[T]):
    """Any thread puts jobs, some take them; after close() they get None, once nothing is left."""

    def __init__(self, policy: Policy) -> None:
        self._changed = threading.Condition()
        self._waiting: Waiting[int, T] = Waiting(policy)
        self._numbers = count()
        self._closed = False

    def put(self, job: T, cost: int) -> None:
        """Queue a job."""
        with self._changed:
            self._waiting.add(next(self._numbers), cost, job)
            self._changed.notify()

    def take(self) -> T | None:
        """The next one, as soon as there is one."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._waiting))
            return self._waiting.take()

    def close(self) -> None:
        """Nothing is put any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Turns:
    """A room for `capacity` threads at once."""

    def __init__(self, capacity: int, policy: Policy) -> None:
        self._changed = threading.Condition()
        self._waiting: Waiting[int, int] = Waiting(policy)
        self._numbers = count()
        self._free = capacity

    @property
    def num_waiting(self) -> int:
        """Threads outside."""
        return len(self._waiting)

    @contextmanager
    def turn(self, cost: int) -> Iterator[None]:
        """Inside it the thread is in the room; it waits outside for its turn."""
        with self._changed:
            mine = next(self._numbers)
            self._waiting.add(mine, cost, mine)
            self._changed.wait_for(lambda: self._free and self._waiting.peek() == mine)
            self._waiting.take()
            self._free -= 1
            self._changed.notify_all()  # there may be room for one more
        try:
            yield
        finally:
            with self._changed:
                self._free += 1
                self._changed.notify_all()
