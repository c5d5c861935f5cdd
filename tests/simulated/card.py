"""The cards of this process: their streams, what is on its way, and what they were asked for."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from tests.simulated.order import HOST, Clock, Order, Use

HERE: Final = str(Path(__file__).parent)
DEVICES: Final = 2
"""Cards of the machine. Streams and their order are the same for all that a process uses."""

BYTES: Final = 80 << 30
POISON: Final = 0xFF
"""Memory that nobody has written yet: not a number, or -1."""

_memory: Any = torch.ops.simulated


class Waits(RuntimeError):
    """torch's own words for what its debug mode finds."""

    def __init__(self, by: str) -> None:
        super().__init__(f"called a synchronizing CUDA operation: {by}")


@dataclass(frozen=True, slots=True)
class _Coming:
    """A copy between pinned memory of the host and the device, of a stream, at a time."""

    stream: int
    time: int
    finish: Callable[[], None]


class Card:
    """See the package. Any thread may use it; `lock` is held while it works."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.order = Order()
        self.sync_mode = "default"
        self.rooms: dict[int, int] = {}
        self._coming: list[_Coming] = []
        self._next_stream = 0
        self._own = threading.local()

    @property
    def stream(self) -> int:
        """The current one of this thread."""
        return getattr(self._own, "stream", 0)

    @stream.setter
    def stream(self, stream: int) -> None:
        self._own.stream = stream

    @property
    def device(self) -> int:
        """The current one of this thread."""
        return getattr(self._own, "device", 0)

    @device.setter
    def device(self, index: int) -> None:
        self._own.device = index
        _memory.set_device(index)

    @property
    def recording(self) -> Any:
        """The graph that this thread records, or None."""
        return getattr(self._own, "recording", None)

    @recording.setter
    def recording(self, graph: Any) -> None:
        self._own.recording = graph

    def new_stream(self) -> int:
        """A stream that nothing else uses."""
        with self.lock:
            self._next_stream += 1
            return self._next_stream

    def settle(self) -> None:
        """Memory that nobody holds any more goes back to the allocator."""
        for room in _memory.take_freed():
            self.rooms.pop(room, None)
            self.order.give_back(room)

    def lend(self, room: int, num_bytes: int) -> None:
        """Fresh memory for the current stream."""
        self.rooms[room] = num_bytes
        if self.recording is None:  # a graph's memory is its own
            self.order.lend(room, self.stream)

    def launch(self, uses: Iterable[Use], by: str) -> int:
        """Work of the current stream."""
        return self.order.launch(self.stream, uses, f"{by} ({_place()})")

    def later(self, time: int, finish: Callable[[], None]) -> None:
        """What is to be seen when the host has waited for this time of the current stream."""
        self._coming.append(_Coming(self.stream, time, finish))

    def wait(self, clock: Clock) -> None:
        """The host waits until all that is done."""
        self.order.learn(HOST, clock)
        here = [each for each in self._coming if self.order.known(each.stream, each.time)]
        self._coming = [each for each in self._coming if each not in here]
        for each in here:
            each.finish()

    def synchronize(self, by: str) -> None:
        """The host waits for the current stream, which torch may have been asked to refuse."""
        if self.recording is not None:
            raise RuntimeError(f"operation not permitted when stream is capturing: {by}")
        if self.sync_mode == "error":
            raise Waits(by)
        self.wait(self.order.clock(self.stream))

    def wait_for_all(self) -> None:
        """The host waits for every stream."""
        for stream in range(self._next_stream + 1):
            self.wait(self.order.clock(stream))

    def told(self) -> list[str]:
        """Faults since the last time, of all that was asked for up to now."""
        with self.lock:
            self.wait_for_all()
            self.settle()
            faults = [*self.order.faults]
            self.order.faults.clear()
        return faults

    @contextmanager
    def on(self, stream: int) -> Iterator[None]:
        """What this thread asks for meanwhile is asked of that stream."""
        before, self.stream = self.stream, stream
        try:
            yield
        finally:
            self.stream = before


def _place() -> str:
    """The first caller that is neither a package nor this one, which its tests are not."""
    frame = sys._getframe(2)
    while frame.f_back is not None:
        folder, _, name = frame.f_code.co_filename.rpartition("/")
        if "site-packages" not in folder and (folder != HERE or name.startswith("test_")):
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return "nowhere"


card = Card()
