"""What waits for a GPU: torch raises for most of it, and who waits for an event is told."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch

_cuda: Any = torch.cuda  # much of it is untyped


@contextmanager
def waits() -> Iterator[set[str]]:
    """Names of functions that wait for an event in here. Any other wait raises.

    Raised are those that torch sees, copies from and to memory that is not pinned among them, and
    waits for the whole device.
    """
    who: set[str] = set()
    plain = _cuda.Event.synchronize

    def for_event(event: Any) -> None:
        who.add(sys._getframe(1).f_code.co_qualname)
        plain(event)

    def for_all(*_: object) -> None:
        raise AssertionError("waits for the whole device")

    with (
        patch.object(torch.cuda.Event, "synchronize", for_event),
        patch.object(torch.cuda, "synchronize", for_all),
    ):
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield who
        finally:
            torch.cuda.set_sync_debug_mode("default")
