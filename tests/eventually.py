"""Waiting for what other threads and processes do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any


def eventually(
    condition: Callable[[], Any], what: str, timeout_s: float = 30.0, *, pause_s: float = 0.05
) -> Any:
    """Ask again until the answer is true; the answer. Fails naming `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:.0f} s: {what}")
        pause.wait(pause_s)
    return answer
