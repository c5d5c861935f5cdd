"""The inside of a BoundedProcess.

The kernel ends it when an answer takes too much of the processor's time: that is counted alike on a
machine that is busy with other things, and goes on where the parent is gone.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from epd.grammar.frames import read_frame, write_frame

Answer = Callable[[dict[str, Any]], dict[str, Any]]


def answer_questions(start: Callable[[dict[str, Any]], Answer], *, most_bytes: int) -> None:
    """Until the parent closes the pipe. `start` makes of what the parent tells who answers."""
    resource.setrlimit(resource.RLIMIT_AS, (most_bytes, most_bytes))
    with suppress(EOFError):
        told = read_frame(sys.stdin.buffer)
        answer = start(told)
        write_frame(sys.stdout.buffer, {"ready": True})
        while True:
            asked = read_frame(sys.stdin.buffer)
            _limit_time(told["timeout_s"])
            write_frame(sys.stdout.buffer, answer(asked))


def _limit_time(seconds: float) -> None:
    """From here on; the kernel counts whole seconds."""
    limit = math.ceil(time.process_time() + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
