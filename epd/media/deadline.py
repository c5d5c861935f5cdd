"""How long one fetch may take, and whether anybody still waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable

from epd.errors import Cancelled

_ASK_EVERY_S = 0.05


class Deadline:
    """A moment that all waits of one fetch share; `wanted` is asked often while they last."""

    def __init__(self, seconds: float, wanted: Callable[[], bool] | None = None) -> None:
        self._at = time.monotonic() + seconds
        self._wanted = wanted

    def left(self, error: type[Exception]) -> float:
        """Seconds until then; raises `error` when it has passed, Cancelled if nobody waits."""
        if self._wanted is not None and not self._wanted():
            raise Cancelled("nobody wants the file any more")
        left = self._at - time.monotonic()
        if left <= 0:
            raise error("deadline")
        return left

    def until(
        self, wait: Callable[[float], bool], error: type[Exception], within: float | None = None
    ) -> None:
        """Repeat `wait(seconds)`, short ones, until it says that what it waits for is there."""
        ends = self._at if within is None else time.monotonic() + within
        while not wait(max(0.0, min(self._step(error), ends - time.monotonic()))):
            if time.monotonic() >= ends:
                raise error("deadline")

    def pause(self, seconds: float, error: type[Exception]) -> bool:
        """Sleep so long; False, at once, where the deadline comes first."""
        over = time.monotonic() + seconds
        if over >= self._at:
            return False

        def sleep(step: float) -> bool:
            time.sleep(max(0.0, min(step, over - time.monotonic())))
            return time.monotonic() >= over

        self.until(sleep, error)
        return True

    def _step(self, error: type[Exception]) -> float:
        left = self.left(error)
        return left if self._wanted is None else min(left, _ASK_EVERY_S)
