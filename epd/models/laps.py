"""How long a device takes for what it was asked for: the host's clock tells how long asking takes.

On CUDA events are recorded around the work, and read when they have happened, so nobody waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any, Protocol

import torch

_cuda: Any = torch.cuda  # much of it is untyped

Heard = Callable[[float, float], None]
"""Called with how many seconds a lap took, and when it ended, by perf_counter()."""


class Lap(Protocol):
    """A stretch of the work that models' stream is asked for; begins where it was made."""

    def end(self) -> None:
        """What is asked for from here on is no part of it."""

    def done(self) -> bool:
        """Whether the device is through with it. Does not wait."""

    def wait(self) -> None:
        """Until it is."""

    @property
    def seconds(self) -> float:
        """How long it took, once it is done."""

    def until(self, later: Any) -> float:
        """Seconds from its end to the end of another one, of which both are done."""


class HostLap:
    """Where the host is the device: what was asked for is done."""

    def __init__(self) -> None:
        self._began = self._ended = perf_counter()

    def end(self) -> None:
        """See Lap."""
        self._ended = perf_counter()

    def done(self) -> bool:
        """See Lap."""
        return True

    def wait(self) -> None:
        """See Lap."""

    @property
    def seconds(self) -> float:
        """See Lap."""
        return self._ended - self._began

    def until(self, later: HostLap) -> float:
        """See Lap."""
        return later._ended - self._ended


class CudaLap:
    """Two events of one GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._began = self._recorded()
        self._ended = self._began

    def _recorded(self) -> Any:
        event = _cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def end(self) -> None:
        """See Lap."""
        self._ended = self._recorded()

    def done(self) -> bool:
        """See Lap."""
        return bool(self._ended.query())

    def wait(self) -> None:
        """See Lap."""
        self._ended.synchronize()

    @property
    def seconds(self) -> float:
        """See Lap."""
        return float(self._began.elapsed_time(self._ended)) / 1000

    def until(self, later: CudaLap) -> float:
        """See Lap."""
        return float(self._ended.elapsed_time(later._ended)) / 1000


class Laps:
    """Laps of one stream, told of in their order. Step thread only."""

    def __init__(self, begin: Callable[[], Lap] = HostLap) -> None:
        self.begin = begin
        """From here on."""
        self._open: deque[tuple[Lap | None, Callable[..., None]]] = deque()

    @property
    def pending(self) -> bool:
        """Whether settle() is due again soon."""
        return bool(self._open)

    def end(self, lap: Lap, heard: Heard) -> None:
        """It ends here; `heard` is called when the device is through with it, at once if it is."""
        lap.end()
        self._open.append((lap, heard))
        self.settle()

    def then(self, call: Callable[[], None]) -> None:
        """Once all that ended before is told."""
        self._open.append((None, call))
        self.settle()

    def settle(self) -> None:
        """Tell what can be told. Never waits."""
        last: Lap | None = None
        done: list[tuple[Lap | None, Callable[..., None]]] = []
        while self._open and ((lap := self._open[0][0]) is None or lap.done()):
            done.append(self._open.popleft())
            last = lap or last
        now = perf_counter()
        for lap, heard in done:
            if lap is None or last is None:
                heard()
            else:
                heard(lap.seconds, now - lap.until(last))

    def finish(self, last: Lap) -> None:
        """Tell all up to that one, of which the host has read what it was for. What the device was
        asked for behind it is not waited for."""
        if any(lap is last for lap, _ in self._open):
            last.wait()
            self.settle()


def laps_for(device: torch.device) -> Laps:
    """Of the device that models run on."""
    return Laps(partial(CudaLap, device)) if device.type == "cuda" else Laps()
