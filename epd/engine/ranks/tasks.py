"""What other ranks do beside rank 0, each when its orders come to it; they say when it is done."""

from __future__ import annotations

import threading
from itertools import count

from epd.errors import EpdError


class Task:
    """One order, until all other ranks have answered it. A transfer's Mark too."""

    def __init__(self, num_ranks: int) -> None:
        self.error: EpdError | None = None
        self._left = num_ranks
        self._lock = threading.Lock()
        self._all = threading.Event()

    def done(self) -> bool:
        """Whether all have answered. Does not wait."""
        return self._all.is_set()

    def wait(self) -> None:
        """Until all have. A rank that dies takes this process along."""
        self._all.wait()

    def answered(self, error: EpdError | None) -> None:
        """By one more rank. The first error stays."""
        with self._lock:
            self.error = self.error or error
            self._left -= 1
            if not self._left:
                self._all.set()


class Tasks:
    """Those that are not done, by number. Answers come from any thread."""

    def __init__(self, num_ranks: int) -> None:
        self._num_ranks = num_ranks
        self._numbers = count()
        self._open: dict[int, Task] = {}

    def begin(self) -> tuple[int, Task]:
        """A number for the order, and what becomes of it."""
        number, task = next(self._numbers), Task(self._num_ranks)
        self._open[number] = task
        return number, task

    def answered(self, number: int, error: EpdError | None = None) -> None:
        """By one rank."""
        task = self._open[number]
        task.answered(error)
        if task.done():
            self._open.pop(number, None)
