"""The receiver's side: a tensor of each payload, checked before a byte is read.

A segment is mapped, for reading only, and read where it is: the sender hears when nobody does any
more. Its owner reserves its memory and never shortens it; that somebody did is an error here, where
it is seen before the bytes are used. An owner that takes us for dead may write over what we read,
so who used the bytes looks at the slot's stamp afterwards.
"""

from __future__ import annotations

import math
import mmap
import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from epd.errors import ProtocolError, Unavailable
from epd.transfer import segments
from epd.transfer.cuda_ipc import DeviceReader
from epd.transfer.dtypes import dtype_of
from epd.transfer.nixl import Pull, RemoteReader
from epd.transfer.runtime import DeviceRuntime
from epd.types import Member, Remote
from epd.wire.messages import Payload

MAX_DIMS: Final = 8


def nothing() -> None:
    """To be done about bytes that are nobody else's."""


@dataclass(frozen=True, slots=True)
class Landed:
    """A tensor for reading only, on the CPU, or on our GPU where a GPU's memory is read.

    `check()` before its bytes are used, and after; of a GPU's memory it never finds anything.
    `own`: its memory is nobody else's already.

    check() raises Unavailable if its sender took the memory back, ProtocolError if it broke it.
    """

    tensor: torch.Tensor
    check: Callable[[], None] = nothing
    own: bool = False

    def copied(self) -> Landed:
        """In memory of its own. Raises what check() does."""
        if self.own:
            return self
        self.check()
        copy = self.tensor.clone()
        self.check()
        return Landed(copy, own=True)


@dataclass(frozen=True, slots=True)
class _Attached:
    """A member's segment, mapped once per incarnation; unmapped with the last tensor in it."""

    incarnation: str
    segment: str
    memory: mmap.mmap


class Incoming:
    """Everything that this process receives. Not thread-safe.

    With a `runtime`, what members lend of their GPUs' memory is read where it is; `lease` tells
    them as long as that may be.
    """

    def __init__(
        self, runtime: DeviceRuntime | None = None, reader: RemoteReader | None = None
    ) -> None:
        self._attached: dict[str, _Attached] = {}
        self._device = None if runtime is None else DeviceReader(runtime)
        self._runtime = runtime
        self._reader = reader
        self._pulls: list[Pull] = []
        self._abandoned: list[Pull] = []
        self.lease = ""
        if runtime is not None:
            self.lease, self._lease_file = segments.lease()

    def take(
        self,
        member: Member,
        payload: Payload,
        frame: memoryview | None,
        unread: Callable[[], None] = nothing,
    ) -> Landed:
        """With the payload's dtype and shape, in the frame or in the member's memory.

        `unread` is called once, by any thread, when nobody reads there any more; also after an
        error; by settle() where it is a GPU that reads. ProtocolError if payload, frame and the
        member's segment disagree. Unavailable if the member took its memory back.
        """
        if payload.remote:
            return self._take_pulled(member, payload, unread)
        if payload.device:
            return self._take_from_gpu(member, payload, frame, unread)
        keeper = _Keeper()
        if unread is not nothing:
            weakref.finalize(keeper, unread).atexit = False
        dtype = dtype_of(payload.dtype)
        _check_size(payload, dtype)
        check: Callable[[], None] = nothing
        if payload.slot < 0:
            if frame is None or frame.nbytes != payload.nbytes:
                raise ProtocolError("payload", f"the frame is not {payload.nbytes} bytes long")
            keeper.show(frame)
        else:
            if frame is not None:
                raise ProtocolError("payload", "both a slot and a frame")
            check = self._read(member, payload, keeper)
            check()
        flat = torch.from_numpy(np.asarray(keeper))
        return Landed(flat.view(dtype).view(payload.shape), check)

    @property
    def waits(self) -> bool:
        """Whether settle() is due again soon: a GPU reads, or bytes are pulled from other hosts."""
        reads = self._device is not None and self._device.waits
        return reads or bool(self._pulls or self._abandoned)

    def settle(self) -> None:
        """Say of what GPUs read that they are done, where they are. Never waits."""
        if self._device is not None:
            self._device.settle()
        if self._reader is not None:
            for pull in [pull for pull in self._abandoned if self._reader.advance(pull)]:
                self._abandoned.remove(pull)
                self._reader.drop(pull)

    @property
    def remote(self) -> Remote | None:
        """Tells members of other hosts whether what they lend is read here."""
        return None if self._reader is None else Remote(metadata=self._reader.metadata)

    def arrived(self, member: Member, payload: Payload) -> bool:
        """Whether take() has something to say now; asked again, until it has, after it said no."""
        if not payload.remote or self._reader is None:
            return True
        pull = self._pull_of(member.name, payload)
        if pull is None:
            pull = self._reader.begin(member, payload)
            self._pulls.append(pull)
        return self._reader.advance(pull)

    def discard(self, name: str, payload: Payload) -> None:
        """What arrived() spoke of is not needed, if take() has not got it already."""
        pull = self._pull_of(name, payload)
        if pull is not None:
            self._pulls.remove(pull)
            self._abandoned.append(pull)
            self.settle()

    def _pull_of(self, name: str, payload: Payload) -> Pull | None:
        found = (p for p in self._pulls if p.member.name == name and p.payload == payload)
        return next(found, None)

    def _take_pulled(self, member: Member, payload: Payload, unread: Callable[[], None]) -> Landed:
        pull = self._pull_of(member.name, payload)
        try:
            if pull is None or self._reader is None:
                raise ProtocolError("payload", "memory of another host that was not agreed on")
            self._pulls.remove(pull)
            dtype = dtype_of(payload.dtype)
            _check_size(payload, dtype)
            return Landed(self._reader.take(pull).view(dtype).view(payload.shape), own=True)
        finally:
            unread()

    def forget(self, name: str) -> None:
        """Let go of this member's memory. What was taken of it stays readable."""
        self._attached.pop(name, None)
        gone = [pull for pull in self._pulls if pull.member.name == name]
        self._pulls = [pull for pull in self._pulls if pull not in gone]
        self._abandoned += gone
        if self._device is not None:
            self._device.forget(name)

    def close(self) -> None:
        """Let go of all memory; a GPU finishes what it reads. Idempotent."""
        self._attached.clear()
        if self._device is None or self._runtime is None or not self.lease:
            return
        self._runtime.mark().wait()
        self._device.settle()
        self._device.close()
        segments.remove(self.lease, self._lease_file)
        self.lease = ""

    def _take_from_gpu(
        self,
        member: Member,
        payload: Payload,
        frame: memoryview | None,
        unread: Callable[[], None],
    ) -> Landed:
        try:
            dtype = dtype_of(payload.dtype)
            _check_size(payload, dtype)
            if self._device is None or frame is not None or not payload.lent:
                raise ProtocolError("payload", "memory of a GPU that was not agreed on")
            flat, own = self._device.take(member, payload, unread)
        except ProtocolError:
            unread()
            raise
        return Landed(flat.view(dtype).view(payload.shape), own=own)

    def _read(self, member: Member, payload: Payload, keeper: _Keeper) -> Callable[[], None]:
        source = self._attach(member)
        start, end = payload.offset, payload.offset + payload.nbytes
        at = payload.kept_at if payload.kept else start - segments.STAMP_BYTES
        size = len(source.memory)
        if not 0 <= at <= start - segments.STAMP_BYTES or end > size:
            raise ProtocolError("payload", f"outside of the {size} bytes of segment")
        stamp = segments.stamp(source.segment, payload.slot)
        keeper.show(memoryview(source.memory)[start:end])

        def check() -> None:
            if source.memory.size() < size:
                raise ProtocolError("segment", f"{source.segment} is shorter than it was")
            if source.memory[at : at + segments.STAMP_BYTES] != stamp:
                raise Unavailable(f"{member.name} took its memory back")

        return check

    def _attach(self, member: Member) -> _Attached:
        found = self._attached.get(member.name)
        if found is not None:
            if (found.incarnation, found.segment) == (member.incarnation, member.segment):
                return found
            self.forget(member.name)
        file, num_bytes = segments.open_to_read(member.segment)
        try:
            # All of its pages at once: a fault for each costs more than a copy.
            flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
            memory = mmap.mmap(file, num_bytes, flags=flags, prot=mmap.PROT_READ)
        finally:
            os.close(file)
        opened = self._attached[member.name] = _Attached(member.incarnation, member.segment, memory)
        return opened


class _Keeper:
    """Shows memory to numpy as writable, because torch has no tensors for reading only.

    It lives as long as anybody has an array or a tensor of it.
    """

    def show(self, memory: memoryview) -> None:
        shown = np.frombuffer(memory, np.uint8).__array_interface__
        self.__array_interface__ = {**shown, "data": (shown["data"][0], False)}
        self.memory = memory


def _check_size(payload: Payload, dtype: torch.dtype) -> None:
    shape = payload.shape
    if len(shape) > MAX_DIMS or any(size < 0 for size in shape):
        raise ProtocolError("payload", "no shape of a tensor")
    if math.prod(shape) * dtype.itemsize != payload.nbytes:
        raise ProtocolError("payload", f"shape and dtype do not make {payload.nbytes} bytes")
