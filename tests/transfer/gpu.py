"""GPUs that several processes share, as they see them: nothing happens before run() lets it.

Each process has a stream on every GPU that it reaches, and one for copies to the host. What is
asked for waits there; run() takes the next thing of one stream, unless that waits for an event. So
a test chooses every order that a real GPU might choose, and bytes that were used anew too early are
seen as wrong.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from epd.errors import ProtocolError
from epd.transfer.runtime import HANDLE_BYTES, Memory


@dataclass(eq=False)
class Event:
    """Happens when its stream comes to it."""

    world: World
    happened: bool = False

    def done(self) -> bool:
        return self.happened

    def wait(self) -> None:
        while not self.happened:
            assert any([stream.run() for stream in self.world.streams]), "a GPU that hangs"


class Stream:
    """What is still to be done, in order: a job, or an event to wait for."""

    def __init__(self, world: World) -> None:
        self.todo: deque[Callable[[], None] | Event] = deque()
        world.streams.append(self)

    def run(self) -> bool:
        """One thing. False: there is none, or it has to wait."""
        if not self.todo:
            return False
        first = self.todo[0]
        if isinstance(first, Event) and not first.happened:
            return False
        self.todo.popleft()
        if not isinstance(first, Event):
            first()
        return True

    def record(self, world: World) -> Event:
        event = Event(world)

        def happen() -> None:
            event.happened = True

        self.todo.append(happen)
        return event


class World:
    """All GPUs and all who use them."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.memories: dict[bytes, np.ndarray] = {}
        self.devices: dict[bytes, str] = {}
        self.signed: dict[bytes, Event] = {}

    def run_all(self) -> None:
        while any([stream.run() for stream in self.streams]):
            pass

    def device_of(self, tensor: torch.Tensor) -> str | None:
        """None where it is in the memory of no GPU."""
        at = tensor.data_ptr()
        for name, room in self.memories.items():
            if 0 <= at - room.ctypes.data < room.nbytes:
                return self.devices[name]
        return None


class FakeGpu:
    """A DeviceRuntime of one process. "Our stream" is `stream`, the one on `device`."""

    def __init__(self, world: World, device: str = "GPU-0", reaches: tuple[str, ...] = ()) -> None:
        self.device = device
        self.reaches = reaches or (device,)
        self.streams = {each: Stream(world) for each in self.reaches}
        self.stream = self.streams[device]
        self.copies = Stream(world)
        self.closed: list[Memory] = []
        self._world = world

    def tensor(self, values: torch.Tensor) -> torch.Tensor:
        """On the device, and ready."""
        memory = self.allocate(values.nbytes)
        made = self.view(memory, 0, values.nbytes, lambda: None)
        return made.view(values.dtype).view(values.shape).copy_(values)

    def clone(self, tensor: torch.Tensor) -> torch.Tensor:
        """As torch does it: on the tensor's GPU, in our stream there."""
        device = self._world.device_of(tensor)
        assert device is not None
        memory = self._allocate(device, tensor.nbytes)
        made = self.view(memory, 0, tensor.nbytes, lambda: None)
        made = made.view(tensor.dtype).view(tensor.shape)
        self._copy(self.streams[device], made, tensor)
        return made

    def allocate(self, num_bytes: int) -> Memory:
        return self._allocate(self.device, num_bytes)

    def _allocate(self, device: str, num_bytes: int) -> Memory:
        name = f"memory {len(self._world.memories)}".encode().ljust(HANDLE_BYTES)
        room = np.zeros(num_bytes, np.uint8)
        self._world.memories[name] = room
        self._world.devices[name] = device
        return Memory(device, num_bytes, room.ctypes.data, name)

    def export(self, memory: Memory) -> tuple[bytes, bytes]:
        return memory.event, memory.event

    def open(self, device: str, num_bytes: int, memory: bytes, event: bytes) -> Memory:
        if device not in self.reaches or memory not in self._world.memories:
            raise ProtocolError("device memory", "not here")
        return Memory(device, num_bytes, self._world.memories[memory].ctypes.data, event)

    def close(self, memory: Memory) -> None:
        self.closed.append(memory)

    def view(
        self, memory: Memory, offset: int, num_bytes: int, gone: Callable[[], None]
    ) -> torch.Tensor:
        shown = _Shown(self._world.memories[memory.event][offset : offset + num_bytes])
        weakref.finalize(shown, gone)
        return torch.from_numpy(np.asarray(shown))

    def empty(self, num_bytes: int) -> torch.Tensor:
        return self.view(self.allocate(num_bytes), 0, num_bytes, lambda: None)

    def offset(self, memory: Memory, tensor: torch.Tensor) -> int:
        return tensor.data_ptr() - memory.address

    def on_host(self, tensor: torch.Tensor) -> bool:
        return self._world.device_of(tensor) is None

    def copy(self, to: torch.Tensor, source: torch.Tensor) -> None:
        self._copy(self.stream, to, source)

    def _copy(self, stream: Stream, to: torch.Tensor, source: torch.Tensor) -> None:
        """Both are looked at by address: a view that has died meanwhile is no excuse."""
        target, origin = _raw(to), _raw(source)
        stream.todo.append(lambda: target.__setitem__(slice(None), origin))

    def sign(self, memory: Memory) -> None:
        self._world.signed[memory.event] = self.stream.record(self._world)

    def await_signed(self, memory: Memory) -> None:
        if memory.event in self._world.signed:
            self.stream.todo.append(self._world.signed[memory.event])

    def mark(self) -> Event:
        return self.stream.record(self._world)

    def pin(self, memory: torch.Tensor) -> None:
        pass

    def unpin(self, memory: torch.Tensor) -> None:
        pass

    def host_bytes(self, num_bytes: int) -> torch.Tensor:
        return torch.zeros(num_bytes, dtype=torch.uint8)

    def download(self, source: torch.Tensor, to: torch.Tensor) -> Event:
        self.copies.todo.append(self.mark())
        self._copy(self.copies, to, source)
        return self.copies.record(self._world)

    def die(self) -> None:
        """Nothing that it asked for happens any more."""
        for stream in (*self.streams.values(), self.copies):
            stream.todo.clear()


class _Shown:
    def __init__(self, room: np.ndarray) -> None:
        self.__array_interface__ = room.__array_interface__


def _raw(tensor: torch.Tensor) -> np.ndarray:
    """Its bytes, without keeping the tensor alive. The memory itself is the world's, or a host's
    that outlives the test."""
    flat = tensor.detach().contiguous().view(-1).view(torch.uint8)
    assert flat.data_ptr() == tensor.data_ptr()
    shape = (flat.numel(),)
    interface = {"shape": shape, "typestr": "|u1", "data": (flat.data_ptr(), False), "version": 3}

    class Place:
        __array_interface__ = interface

    return np.asarray(Place())
