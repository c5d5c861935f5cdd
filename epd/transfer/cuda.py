"""CUDA as transfers use it: torch's streams and events, and the driver's IPC handles for memory.

The driver is asked directly, for torch's own sharing passes objects between processes, and hands
out parts of blocks that its allocator shares with everything else.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from typing import Any, Final

import torch

from epd.errors import ConfigError, ProtocolError
from epd.transfer.runtime import HANDLE_BYTES, Mark, Memory

LAZY_PEER_ACCESS: Final = 1

_cuda: Any = torch.cuda  # much of it is untyped


class _Handle(ctypes.Structure):
    """CUipcMemHandle, which the driver takes by value."""

    _fields_ = (("reserved", ctypes.c_char * HANDLE_BYTES),)


class CudaRuntime:
    """One GPU. `device` as torch names it, "cuda" for its current one."""

    def __init__(self, device: str) -> None:
        index = torch.device(device).index
        self._index: int = torch.cuda.current_device() if index is None else index
        self._driver = _driver()
        self._copies = _cuda.Stream(self._index)
        indices = [self._index]
        for other in range(torch.cuda.device_count()):
            if other != self._index and torch.cuda.can_device_access_peer(self._index, other):
                indices.append(other)
        self._indices = {_uuid(index): index for index in indices}
        self._exported: dict[bytes, Memory] = {}  # the driver opens nothing of its own process

    @property
    def device(self) -> str:
        """See DeviceRuntime."""
        return next(iter(self._indices))

    @property
    def reaches(self) -> tuple[str, ...]:
        """See DeviceRuntime."""
        return tuple(self._indices)

    def allocate(self, num_bytes: int) -> Memory:
        """Beside torch's allocator. Never freed here: others may still have it open."""
        address = ctypes.c_uint64()
        with torch.cuda.device(self._index):
            torch.cuda.current_stream().synchronize()  # the context is there, and current
            code = self._driver.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(num_bytes))
        if code:
            raise ConfigError(
                f"no {num_bytes} bytes on the GPU for wire.device_bytes (CUDA error {code})"
            )
        event = _cuda.Event(interprocess=True)
        memory = Memory(self.device, num_bytes, address.value, event)
        self.sign(memory)
        return memory

    def export(self, memory: Memory) -> tuple[bytes, bytes]:
        """See DeviceRuntime."""
        handle = _Handle()
        with torch.cuda.device(self._index):
            code = self._driver.cuIpcGetMemHandle(
                ctypes.byref(handle), ctypes.c_uint64(memory.address)
            )
        if code:
            raise ConfigError(
                f"this GPU's memory cannot be shared between processes (CUDA error {code}); "
                "set wire.device_bytes to 0"
            )
        self._exported[bytes(handle)] = memory
        return bytes(handle), bytes(memory.event.ipc_handle())

    def open(self, device: str, num_bytes: int, memory: bytes, event: bytes) -> Memory:
        """See DeviceRuntime."""
        index = self._indices.get(device)
        if index is None:
            raise ProtocolError("device memory", f"of a GPU that is not reached: {device}")
        if memory in self._exported:
            return self._exported[memory]
        address = ctypes.c_uint64()
        handle = _Handle.from_buffer_copy(memory)
        with torch.cuda.device(index):
            torch.cuda.current_stream().synchronize()  # the context is there, and current
            code = self._driver.cuIpcOpenMemHandle_v2(
                ctypes.byref(address), handle, ctypes.c_uint(LAZY_PEER_ACCESS)
            )
            if code:
                raise ProtocolError(
                    "device memory", f"CUDA error {code} opening it; set wire.device_bytes to 0"
                )
            opened = _cuda.Event.from_ipc_handle(torch.device("cuda", index), event)
        return Memory(device, num_bytes, address.value, opened)

    def close(self, memory: Memory) -> None:
        """See DeviceRuntime."""
        if memory in self._exported.values():
            return
        with torch.cuda.device(self._indices[memory.device]):
            self._driver.cuIpcCloseMemHandle(ctypes.c_uint64(memory.address))

    def view(
        self, memory: Memory, offset: int, num_bytes: int, gone: Callable[[], None]
    ) -> torch.Tensor:
        """See DeviceRuntime."""
        shown = _Shown(memory.address + offset, num_bytes)
        weakref.finalize(shown, gone).atexit = False
        return torch.as_tensor(shown, device=torch.device("cuda", self._indices[memory.device]))

    def empty(self, num_bytes: int) -> torch.Tensor:
        """See DeviceRuntime."""
        return torch.empty(num_bytes, dtype=torch.uint8, device=torch.device("cuda", self._index))

    def offset(self, memory: Memory, tensor: torch.Tensor) -> int:
        """See DeviceRuntime."""
        return tensor.data_ptr() - memory.address

    def on_host(self, tensor: torch.Tensor) -> bool:
        """See DeviceRuntime."""
        return not tensor.is_cuda

    def copy(self, to: torch.Tensor, source: torch.Tensor) -> None:
        """See DeviceRuntime. From another GPU torch copies in a stream of that one, which waits for
        ours, and ours for it."""
        to.copy_(source, non_blocking=True)

    def sign(self, memory: Memory) -> None:
        """See DeviceRuntime."""
        memory.event.record(torch.cuda.current_stream(self._index))

    def await_signed(self, memory: Memory) -> None:
        """See DeviceRuntime."""
        torch.cuda.current_stream(self._index).wait_event(memory.event)

    def mark(self) -> Mark:
        """See DeviceRuntime."""
        event = _cuda.Event()
        event.record(torch.cuda.current_stream(self._index))
        return EventMark(event)

    def pin(self, memory: torch.Tensor) -> None:
        """See DeviceRuntime."""
        code = _cuda.cudart().cudaHostRegister(memory.data_ptr(), memory.nbytes, 0)
        if int(code):
            raise ConfigError(
                f"{memory.nbytes} bytes of shared memory cannot be locked for the GPU "
                f"(CUDA error {int(code)}); lower wire.shm_bytes, or raise the limit memlock"
            )

    def unpin(self, memory: torch.Tensor) -> None:
        """See DeviceRuntime."""
        _cuda.cudart().cudaHostUnregister(memory.data_ptr())

    def host_bytes(self, num_bytes: int) -> torch.Tensor:
        """From torch's pool of pinned memory, which waits for copies before it lends it again."""
        return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)

    def download(self, source: torch.Tensor, to: torch.Tensor) -> Mark:
        """See DeviceRuntime."""
        self._copies.wait_stream(torch.cuda.current_stream(self._index))
        event = _cuda.Event()
        with torch.cuda.stream(self._copies):
            to.copy_(source, non_blocking=True)
            event.record(self._copies)
        source.record_stream(self._copies)
        return EventMark(event, source)


class EventMark:
    """An event, and a tensor that is read until then.

    Of its own memory torch knows by which streams it is read; of memory that is lent to other
    processes it does not, so that must not be given back before.
    """

    def __init__(self, event: Any, source: torch.Tensor | None = None) -> None:
        self._event = event
        self._source = source

    def done(self) -> bool:
        """See Mark."""
        if not self._event.query():
            return False
        self._source = None
        return True

    def wait(self) -> None:
        """See Mark."""
        self._event.synchronize()
        self._source = None


class _Shown:
    """Shows memory of a GPU to torch; lives as long as any tensor of it."""

    def __init__(self, address: int, num_bytes: int) -> None:
        self.__cuda_array_interface__ = {
            "shape": (num_bytes,),
            "typestr": "|u1",
            "data": (address, False),
            "strides": None,
            "version": 2,
        }


def _uuid(index: int) -> str:
    return str(torch.cuda.get_device_properties(index).uuid)


def _driver() -> Any:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise ConfigError(f"CUDA's driver library cannot be loaded: {error}") from None
