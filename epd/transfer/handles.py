"""A process's device memory as bytes in its Member: fixed fields, checked, nothing to execute."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from epd.errors import ProtocolError
from epd.transfer.runtime import HANDLE_BYTES

_MAGIC: Final = b"epdG"
_VERSION: Final = 1
_LAYOUT: Final = struct.Struct(f"!4sBQ{HANDLE_BYTES}s{HANDLE_BYTES}s")


@dataclass(frozen=True, slots=True)
class DeviceHandle:
    """How many bytes, and CUDA's handles of them and of the event that signs them."""

    num_bytes: int
    memory: bytes
    event: bytes

    def packed(self) -> bytes:
        """What travels."""
        assert len(self.memory) == len(self.event) == HANDLE_BYTES
        return _LAYOUT.pack(_MAGIC, _VERSION, self.num_bytes, self.memory, self.event)


def unpacked(data: bytes) -> DeviceHandle:
    """ProtocolError for anything that packed() cannot have made."""
    if len(data) != _LAYOUT.size:
        raise ProtocolError("device memory", f"a handle of {len(data)} bytes")
    magic, version, num_bytes, memory, event = _LAYOUT.unpack(data)
    if magic != _MAGIC or version != _VERSION or not num_bytes:
        raise ProtocolError("device memory", "not a handle that we issue")
    return DeviceHandle(num_bytes, memory, event)
