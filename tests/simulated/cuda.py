"""What torch.cuda says and does, of the card."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch

from tests.simulated.card import BYTES, DEVICES, card
from tests.simulated.graphs import Graph, graph
from tests.simulated.order import Clock

HANDLE_BYTES = 64
CUDA = 1  # torch's number of this kind of device


class Stream(torch.Stream):
    """At the interface of torch.cuda.Stream."""

    def __new__(cls, device: Any = None, priority: int = 0, number: int | None = None) -> Stream:
        number = card.new_stream() if number is None else number
        return super().__new__(cls, stream_id=number, device_index=0, device_type=CUDA)

    def wait_stream(self, other: Any) -> None:
        card.order.learn(self.stream_id, card.order.clock(other.stream_id))

    def wait_event(self, event: Any) -> None:
        card.order.learn(self.stream_id, event.clock)

    def record_event(self, event: Any = None) -> Any:
        event = event or Event()
        event.record(self)
        return event

    def synchronize(self) -> None:
        with card.lock, card.on(self.stream_id):
            card.synchronize("synchronize")

    def query(self) -> bool:
        return True

    @property
    def cuda_stream(self) -> int:
        return self.stream_id


class Event:
    """At the interface of torch.cuda.Event. It has happened when somebody asks or waits."""

    def __init__(
        self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False
    ) -> None:
        self.clock: Clock = {}
        self._timing = enable_timing
        self._time = 0.0

    def record(self, stream: Any = None) -> None:
        stream = stream or current_stream()
        with card.lock:
            card.order.learn(stream.stream_id, card.order.clock(-1))
            self.clock = card.order.clock(stream.stream_id)
        self._time = time.perf_counter()

    def wait(self, stream: Any = None) -> None:
        (stream or current_stream()).wait_event(self)

    def query(self) -> bool:
        with card.lock:
            card.wait(self.clock)
        return True

    def synchronize(self) -> None:
        with card.lock:
            if card.recording is not None:
                raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
            card.wait(self.clock)

    def ipc_handle(self) -> bytes:
        return bytes(HANDLE_BYTES)

    @classmethod
    def from_ipc_handle(cls, device: torch.device, handle: bytes) -> Event:
        """What another process did is done."""
        return cls()

    def elapsed_time(self, end: Event) -> float:
        if not (self._timing and end._timing):
            raise RuntimeError("both events must be made with enable_timing=True")
        return (end._time - self._time) * 1e3


def current_stream(device: Any = None) -> Stream:
    return Stream(number=card.stream)


@contextmanager
def on_stream(stream: Any) -> Iterator[None]:
    if stream is None:
        yield
        return
    with card.on(stream.stream_id):
        yield


@contextmanager
def on_device(device: Any) -> Iterator[None]:
    before = card.device
    set_device(device)
    try:
        yield
    finally:
        card.device = before


def set_device(device: Any) -> None:
    card.device = index_of(device)


def index_of(device: Any) -> int:
    found = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    return card.device if found.index is None else found.index


def synchronize(device: Any = None) -> None:
    with card.lock:
        card.wait_for_all()


def properties(device: Any = None) -> Any:
    return SimpleNamespace(
        name="simulated",
        major=9,
        minor=0,
        multi_processor_count=4,
        total_memory=BYTES,
        uuid=f"simulated-{card.device if device is None else index_of(device)}",
        warp_size=32,
        max_threads_per_multi_processor=2048,
        shared_memory_per_block_optin=232448,
        L2_cache_size=50 << 20,
    )


def mem_get_info(device: Any = None) -> tuple[int, int]:
    with card.lock:
        card.settle()
        return BYTES - sum(card.rooms.values()), BYTES


def allocated(device: Any = None) -> int:
    return BYTES - mem_get_info()[0]


def set_sync_debug_mode(mode: Any) -> None:
    card.sync_mode = {0: "default", 1: "warn", 2: "error"}.get(mode, mode)


class _Runtime:
    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:
        torch.ops.simulated.pin(address, size)
        return 0

    def cudaHostUnregister(self, address: int) -> int:
        torch.ops.simulated.unpin(address)
        return 0


def nothing(*args: Any, **kwargs: Any) -> None:
    pass


STANDS_FOR: dict[str, Any] = {
    "Stream": Stream,
    "Event": Event,
    "CUDAGraph": Graph,
    "graph": graph,
    "graph_pool_handle": lambda: (0, 0),
    "stream": on_stream,
    "device": on_device,
    "current_stream": current_stream,
    "default_stream": lambda device=None: Stream(number=0),
    "synchronize": synchronize,
    "is_available": lambda: True,
    "is_initialized": lambda: True,
    "is_bf16_supported": lambda including_emulation=True: True,
    "is_current_stream_capturing": lambda: card.recording is not None,
    "device_count": lambda: DEVICES,
    "current_device": lambda: card.device,
    "set_device": set_device,
    "init": nothing,
    "_lazy_init": nothing,
    "empty_cache": nothing,
    "ipc_collect": nothing,
    "manual_seed": nothing,
    "manual_seed_all": nothing,
    "reset_peak_memory_stats": nothing,
    "set_per_process_memory_fraction": nothing,
    "set_sync_debug_mode": set_sync_debug_mode,
    "get_device_properties": properties,
    "get_device_name": lambda device=None: "simulated",
    "get_device_capability": lambda device=None: (9, 0),
    "can_device_access_peer": lambda one, other: True,
    "mem_get_info": mem_get_info,
    "memory_allocated": allocated,
    "max_memory_allocated": allocated,
    "memory_reserved": allocated,
    "max_memory_reserved": allocated,
    "cudart": _Runtime,
}
