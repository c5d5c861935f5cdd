"""Tensors in a GPU's memory that processes of one host share: lent here, read there.

The owner's copies and the reader's work are in streams, so bytes are there, and read, later than
either is asked for. A reader's stream waits for the owner's event; the reader says that it is done
when an event of its own is, and only then the owner uses the bytes anew. Work on a tensor is in a
stream of the tensor's GPU, so a reader on another one has a copy on its own made in its stream. One
that is taken for dead may still read: what it has is not used before the file that its process
holds locked is free.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch

from epd.errors import ProtocolError
from epd.transfer import segments
from epd.transfer.arena import Arena
from epd.transfer.handles import DeviceHandle, unpacked
from epd.transfer.lending import Lending
from epd.transfer.runtime import DeviceRuntime, Mark, Memory
from epd.types import Member
from epd.wire.messages import Payload


class DeviceArena:
    """The owner's side. Step thread only; readers are known by their leases.

    `held` tells whether a lease's process may be alive.
    """

    def __init__(
        self,
        runtime: DeviceRuntime,
        num_bytes: int,
        numbers: Iterator[int],
        held: Callable[[str], bool] = segments.held,
    ) -> None:
        self._runtime = runtime
        self._lending = Lending(Arena(num_bytes, numbers), lambda slot: None)
        self._memory = runtime.allocate(num_bytes)
        self.handle = DeviceHandle(num_bytes, *runtime.export(self._memory)).packed()
        self._held = held
        self._leases: dict[str, str] = {}  # by reader's name
        self._doubted: set[str] = set()  # leases of readers that were taken for dead

    @property
    def num_bytes(self) -> int:
        """All of it."""
        return self._lending.arena.num_bytes

    @property
    def kept_bytes(self) -> int:
        """What tensors of ours take."""
        return self._lending.kept_bytes

    @property
    def in_use(self) -> int:
        """Bytes lent now, those that are kept not."""
        self._reap()
        return self._lending.in_use

    def keep(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """A copy that others can read, for as long as it lives. None: there is no room."""
        slot = self._lending.keep(tensor.nbytes) if tensor.nbytes else None
        if slot is None:
            return None
        gone = partial(self._lending.gone, slot.number)
        copy = self._runtime.view(self._memory, slot.offset, tensor.nbytes, gone)
        copy = copy.view(tensor.dtype).view(tensor.shape)
        self._runtime.copy(copy, tensor)
        self._runtime.sign(self._memory)
        return copy

    def offset(self, tensor: torch.Tensor) -> int | None:
        """Where it is in here, if it is kept here and can be read as it lies."""
        if not self._lending.any_kept or not tensor.is_contiguous():
            return None
        offset = self._runtime.offset(self._memory, tensor)
        return offset if self._lending.kept_at(offset) is not None else None

    def stage(self, tensor: torch.Tensor, *, dtype: str, to: str, lease: str) -> Payload | None:
        """Where a reader finds the tensor. None: there is no room now."""
        self._reap()
        self._leases[to] = lease
        offset = self.offset(tensor)
        kept = None if offset is None else self._lending.kept_at(offset)
        if kept is not None and offset is not None:
            kept.readers[lease] += 1
            number, kept_at = kept.slot.number, kept.slot.offset
        else:
            slot = self._lending.lend(tensor.nbytes, to=lease)
            if slot is None:
                return None
            self.put(tensor, slot.offset)
            number, offset, kept_at = slot.number, slot.offset, -1
        return Payload(
            dtype=dtype,
            shape=tuple(tensor.shape),
            nbytes=tensor.nbytes,
            slot=number,
            offset=offset,
            kept_at=kept_at,
            device=True,
        )

    def put(self, tensor: torch.Tensor, offset: int) -> None:
        """A copy there, in stream order: where stage() found room, or rank 0's did."""
        place = self._runtime.view(self._memory, offset, tensor.nbytes, _nothing)
        self._runtime.copy(place.view(tensor.dtype).view(tensor.shape), tensor)
        self._runtime.sign(self._memory)

    def could_fit(self, num_bytes: int) -> bool:
        """Whether it can be staged when everything has been given back."""
        return self._lending.arena.could_fit(num_bytes)

    def give_back(self, slot: int, *, by: str) -> bool:
        """A reader's stream is done with it. False: it was not lent to that one."""
        lease = self._leases.get(by)
        return lease is not None and self._lending.give_back(slot, by=lease)

    def peer_lost(self, name: str) -> None:
        """A reader was taken for dead: what it has is free when it is."""
        lease = self._leases.get(name)
        if lease is not None and self._lending.reads(lease):
            self._doubted.add(lease)
        self._reap()

    def _reap(self) -> None:
        for lease in [each for each in self._doubted if not any(map(self._held, each.split(",")))]:
            self._doubted.remove(lease)
            self._lending.lost(lease)


@dataclass(frozen=True, slots=True)
class _Opened:
    """A member's memory, opened once per process."""

    incarnation: str
    handle: bytes
    memory: Memory


class DeviceReader:
    """The reader's side. Step thread only, but for the end of tensors."""

    def __init__(self, runtime: DeviceRuntime) -> None:
        self._runtime = runtime
        self._opened: dict[str, _Opened] = {}
        self._shown: dict[int, int] = {}  # how many tensors show a memory, by its address
        self._closing: dict[int, Memory] = {}
        self._unused: deque[tuple[Memory, Callable[[], None]]] = deque()  # no tensor shows it
        self._marked: deque[tuple[Mark, Memory, Callable[[], None]]] = deque()

    def take(
        self, member: Member, payload: Payload, unread: Callable[[], None]
    ) -> tuple[torch.Tensor, bool]:
        """The payload's bytes, uint8, on our GPU, and whether they are a copy of ours.

        Whoever uses them does so in our stream. `unread` is called by settle() when our stream is
        done with them. ProtocolError if the member lends no such memory; `unread` is not called
        then.
        """
        memory = self._open(member)
        start, end = payload.offset, payload.offset + payload.nbytes
        if not 0 <= start <= end <= memory.num_bytes:
            raise ProtocolError("payload", f"outside of the {memory.num_bytes} bytes of memory")
        self._runtime.await_signed(memory)
        self._shown[memory.address] = self._shown.get(memory.address, 0) + 1
        gone = partial(self._unused.append, (memory, unread))
        shown = self._runtime.view(memory, start, payload.nbytes, gone)
        if memory.device == self._runtime.device:
            return shown, False
        copy = self._runtime.empty(payload.nbytes)
        self._runtime.copy(copy, shown)
        return copy, True

    @property
    def waits(self) -> bool:
        """Whether settle() is to be called again soon."""
        return bool(self._unused or self._marked)

    def settle(self) -> None:
        """Tell the owners of bytes that our stream is done with. Never waits."""
        if self._unused:
            mark = self._runtime.mark()
            while self._unused:
                self._marked.append((mark, *self._unused.popleft()))
        while self._marked and self._marked[0][0].done():
            _, memory, unread = self._marked.popleft()
            self._shown[memory.address] -= 1
            self._close_unused(memory.address)
            unread()

    def forget(self, name: str) -> None:
        """Let go of this member's memory, once our stream is done with it."""
        opened = self._opened.pop(name, None)
        if opened is not None:
            self._closing[opened.memory.address] = opened.memory
            self._close_unused(opened.memory.address)

    def close(self) -> None:
        """Let go of what nobody uses; the process's end does the rest."""
        for name in list(self._opened):
            self.forget(name)

    def _close_unused(self, address: int) -> None:
        if address in self._closing and not self._shown.get(address):
            self._shown.pop(address, None)
            self._runtime.close(self._closing.pop(address))

    def _open(self, member: Member) -> Memory:
        gpu = member.gpu
        if gpu is None or not gpu.handle:
            raise ProtocolError("payload", f"{member.name} lends no memory of a GPU")
        found = self._opened.get(member.name)
        if found is not None:
            if (found.incarnation, found.handle) == (member.incarnation, gpu.handle):
                return found.memory
            self.forget(member.name)
        handle = unpacked(gpu.handle)
        memory = self._runtime.open(gpu.device, handle.num_bytes, handle.memory, handle.event)
        self._opened[member.name] = _Opened(member.incarnation, gpu.handle, memory)
        return memory


def _nothing() -> None:
    """A view that only the copy into it needs."""
