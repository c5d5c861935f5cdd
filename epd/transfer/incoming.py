"""The receiver's side: a tensor of each payload, checked before a byte is read.

A segment is mapped, for reading only: to read its file is 40 % slower. Its owner reserves its
memory and never shortens it; that somebody did is an error here, where it is seen before the copy.
An owner that takes us for dead may write over what we read, so the slot's stamp is checked after
the copy.
"""

from __future__ import annotations

import math
import mmap
import os
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from epd.errors import ProtocolError, Unavailable
from epd.transfer import segments
from epd.transfer.dtypes import dtype_of
from epd.types import Member
from epd.wire.messages import Payload

MAX_DIMS: Final = 8


@dataclass(frozen=True, slots=True)
class _Attached:
    """A member's segment, opened once per incarnation."""

    incarnation: str
    segment: str
    file: int
    memory: torch.Tensor


class Incoming:
    """Everything that this process receives. Not thread-safe."""

    def __init__(self) -> None:
        self._attached: dict[str, _Attached] = {}

    def take(self, member: Member, payload: Payload, frame: memoryview | None) -> torch.Tensor:
        """On the CPU, with the payload's dtype and shape, for reading only.

        It lives as long as the caller keeps it: in memory of its own, or in the frame's.

        ProtocolError if payload, frame and the member's segment disagree. Unavailable if the member
        took its memory back.
        """
        dtype = dtype_of(payload.dtype)
        _check_size(payload, dtype)
        flat: torch.Tensor
        if payload.slot < 0:
            if frame is None or frame.nbytes != payload.nbytes:
                raise ProtocolError("payload", f"the frame is not {payload.nbytes} bytes long")
            flat = _shown(frame)
        else:
            if frame is not None:
                raise ProtocolError("payload", "both a slot and a frame")
            flat = self._read(member, payload)
        return flat.view(dtype).view(payload.shape)

    def forget(self, name: str) -> None:
        """Let go of this member's segment."""
        attached = self._attached.pop(name, None)
        if attached is not None:
            os.close(attached.file)

    def close(self) -> None:
        """Let go of all segments. Idempotent."""
        for name in list(self._attached):
            self.forget(name)

    def _read(self, member: Member, payload: Payload) -> torch.Tensor:
        source = self._attach(member)
        start, end = payload.offset, payload.offset + payload.nbytes
        at = payload.kept_at if payload.kept_at >= 0 else start - segments.STAMP_BYTES
        size = len(source.memory)
        if not 0 <= at <= start - segments.STAMP_BYTES or end > size:
            raise ProtocolError("payload", f"outside of the {size} bytes of segment")
        if os.fstat(source.file).st_size < size:
            raise ProtocolError("segment", f"{source.segment} is shorter than it was")
        flat = torch.empty(payload.nbytes, dtype=torch.uint8)
        flat.copy_(source.memory[start:end])
        stamp = source.memory[at : at + segments.STAMP_BYTES]
        if stamp.numpy().tobytes() != segments.stamp(source.segment, payload.slot):
            raise Unavailable(f"{member.name} took its memory back")
        return flat

    def _attach(self, member: Member) -> _Attached:
        found = self._attached.get(member.name)
        if found is not None:
            if (found.incarnation, found.segment) == (member.incarnation, member.segment):
                return found
            self.forget(member.name)
        file, num_bytes = segments.open_to_read(member.segment)
        # All of its pages at once: a fault for each costs more than the copies.
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        memory = mmap.mmap(file, num_bytes, flags=flags, prot=mmap.PROT_READ)
        opened = _Attached(member.incarnation, member.segment, file, _shown(memoryview(memory)))
        self._attached[member.name] = opened
        return opened


def _shown(memory: memoryview) -> torch.Tensor:
    return torch.from_numpy(np.asarray(_Shown(memory)))


class _Shown:
    """Shows memory to numpy as writable, because torch has no tensors for reading only."""

    def __init__(self, memory: memoryview) -> None:
        shown = np.frombuffer(memory, np.uint8).__array_interface__
        self.__array_interface__ = {**shown, "data": (shown["data"][0], False)}
        self.memory = memory  # lives as long as this


def _check_size(payload: Payload, dtype: torch.dtype) -> None:
    shape = payload.shape
    if len(shape) > MAX_DIMS or any(size < 0 for size in shape):
        raise ProtocolError("payload", "no shape of a tensor")
    if math.prod(shape) * dtype.itemsize != payload.nbytes:
        raise ProtocolError("payload", f"shape and dtype do not make {payload.nbytes} bytes")
