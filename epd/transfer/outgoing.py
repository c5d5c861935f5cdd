"""The sender's side: tensors are read from shared memory, or go along as frames.

One that keep() put there is read where it is, by whoever asks; of any other a copy waits there for
its receiver. Memory that is lent is reused only when its receivers gave it back or are lost. One
may have been lost by mistake and still read: before the bytes of a slot stands a stamp, which is
wiped first and which the receiver looks at last.
"""

from __future__ import annotations

import mmap
import weakref
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np
import torch

from epd.transfer import segments
from epd.transfer.arena import Arena, Slot
from epd.transfer.dtypes import name_of
from epd.wire.messages import Payload

SHARES: Final = 8
"""Chunks that an arena has room for."""

KEPT_SHARE: Final = 2
"""One part in so many of an arena may be kept, for the rest must never be without room for long."""

OURS: Final = "(kept)"
"""Whose a slot is that is kept: no name of a receiver."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """What a bulk message carries: its payload, and the raw frame if it is not in the arena."""

    payload: Payload
    frame: memoryview | None


@dataclass(slots=True)
class _Kept:
    """A slot that is kept for its tensors, and after them for its readers."""

    slot: Slot
    readers: Counter[str] = field(default_factory=Counter)
    gone: bool = False  # its tensors


class Outgoing:
    """An arena of one process. Not thread-safe: its owner calls it from one thread.

    Receivers are called by any string that is the same in stage(), give_back() and peer_lost().
    """

    def __init__(self, *, arena_bytes: int) -> None:
        self.segment = ""
        self.ignored = 0  # give-backs of slots that were not lent to who gave them back
        self.kept_bytes = 0
        self._kept: dict[int, _Kept] = {}  # by number
        self._freed: deque[int] = deque()  # kept ones whose tensors are gone, told by any thread
        self._arena = Arena(arena_bytes)
        if arena_bytes > 0:
            self.segment, self._file = segments.create(arena_bytes)
            self._map = mmap.mmap(self._file, arena_bytes)
            self._bytes = torch.frombuffer(self._map, dtype=torch.uint8)

    def chunk_bytes(self, frame_bytes: int, *, same_host: bool) -> int:
        """How much to stage at once: each chunk costs a message there and one back.

        `frame_bytes` where chunks travel as frames; a share of the arena where they wait in it, so
        that one is copied in while another is copied out.
        """
        share = self._arena.num_bytes // SHARES - segments.STAMP_BYTES
        return max(frame_bytes, share) if same_host else frame_bytes

    def keep(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy with memory of its own; in the arena where that has room, for as long as it lives.

        It may die in any thread.
        """
        self._reap()
        num_bytes = tensor.numel() * tensor.element_size()
        stamped = segments.STAMP_BYTES + num_bytes
        most = self._arena.num_bytes // KEPT_SHARE
        slot = None
        if tensor.device.type == "cpu" and num_bytes and self.kept_bytes + stamped <= most:
            slot = self._arena.lend(stamped, to=OURS)
        if slot is None:
            return tensor.clone(memory_format=torch.contiguous_format)
        self._kept[slot.number] = _Kept(slot)
        self.kept_bytes += slot.num_bytes
        memory = _Memory(self._stamped(slot, num_bytes), partial(self._freed.append, slot.number))
        copy = torch.from_numpy(np.asarray(memory)).view(tensor.dtype).view(tensor.shape)
        return copy.copy_(tensor)

    def keeps(self, tensor: torch.Tensor) -> bool:
        """Whether its bytes are where a receiver on this host can read them."""
        return self._kept_of(tensor) is not None

    @property
    def in_use(self) -> int:
        """Bytes lent now, those that are kept not."""
        self._reap()
        return self._arena.in_use - self.kept_bytes

    def stage(self, tensor: torch.Tensor, *, to: str, same_host: bool) -> Staged | None:
        """Put a tensor, contiguous, where its receiver reads it. Nobody may write to it again.

        None: the arena is full now, try again after a give_back or a peer_lost.
        """
        dtype = name_of(tensor.dtype)
        num_bytes = tensor.numel() * tensor.element_size()
        stamped = segments.STAMP_BYTES + num_bytes
        if not same_host or not num_bytes or not self._arena.could_fit(stamped):
            return _as_frame(tensor, num_bytes)
        self._reap()
        kept = self._kept_of(tensor)
        slot = kept.slot if kept else self._arena.lend(stamped, to=to)
        if slot is None:
            return None
        if kept is None:
            place = self._stamped(slot, num_bytes)
            place.view(tensor.dtype).view(tensor.shape).copy_(tensor)
            offset = slot.offset + segments.STAMP_BYTES
        else:
            kept.readers[to] += 1
            offset = tensor.data_ptr() - self._bytes.data_ptr()
        payload = Payload(
            dtype=dtype,
            shape=tuple(tensor.shape),
            nbytes=num_bytes,
            slot=slot.number,
            offset=offset,
            kept_at=-1 if kept is None else slot.offset,
        )
        return Staged(payload=payload, frame=None)

    def give_back(self, slot: int, *, by: str) -> None:
        """The receiver reads it no more. Ignored and counted unless the slot was lent to it."""
        kept = self._kept.get(slot)
        if kept is not None and kept.readers[by]:
            kept.readers -= Counter((by,))
            self._end_unread(kept)
        elif kept is None and self._arena.lender(slot) == by:
            self._end(slot)
        else:
            self.ignored += 1

    def peer_lost(self, name: str) -> None:
        """It is dead or was told that it is forgotten: what it reads of its slots is void."""
        for kept in list(self._kept.values()):
            del kept.readers[name]
            self._end_unread(kept)
        for slot in self._arena.slots:
            if slot.to == name:
                self._end(slot.number)

    def close(self) -> None:
        """Remove the segment. Idempotent."""
        if not self.segment:
            return
        self._reap()
        del self._bytes  # the mapping cannot be closed while a tensor shows into it
        if not self._kept:  # else it goes with the last of them
            self._map.close()
        del self._map
        segments.remove(self.segment, self._file)
        self.segment = ""
        self._arena = Arena(0)

    def _stamped(self, slot: Slot, num_bytes: int) -> torch.Tensor:
        """The bytes behind its stamp."""
        offset = slot.offset + segments.STAMP_BYTES
        self._map[slot.offset : offset] = segments.stamp(self.segment, slot.number)
        return self._bytes[offset : offset + num_bytes]

    def _kept_of(self, tensor: torch.Tensor) -> _Kept | None:
        """What is kept and has all of it."""
        if not self._kept or tensor.device.type != "cpu" or not tensor.is_contiguous():
            return None
        offset = tensor.data_ptr() - self._bytes.data_ptr()
        for kept in self._kept.values():
            if kept.slot.offset < offset < kept.slot.offset + kept.slot.num_bytes:
                return kept
        return None

    def _reap(self) -> None:
        """Slots whose tensors are gone are free, unless somebody reads there."""
        while self._freed:
            kept = self._kept[self._freed.popleft()]
            kept.gone = True
            self._end_unread(kept)

    def _end_unread(self, kept: _Kept) -> None:
        if kept.gone and not kept.readers:
            del self._kept[kept.slot.number]
            self.kept_bytes -= kept.slot.num_bytes
            if self.segment:
                self._end(kept.slot.number)

    def _end(self, slot: int) -> None:
        offset = self._arena.offset(slot)
        self._map[offset : offset + segments.STAMP_BYTES] = bytes(segments.STAMP_BYTES)
        self._arena.give_back(slot)


class _Memory:
    """Shows bytes of the arena to numpy; gone once no tensor needs them any more."""

    def __init__(self, place: torch.Tensor, gone: Callable[[], None]) -> None:
        self.__array_interface__ = place.numpy().__array_interface__
        self.place = place
        weakref.finalize(self, gone).atexit = False


def _as_frame(tensor: torch.Tensor, num_bytes: int) -> Staged:
    """Not copied where that can be helped: the frame keeps its memory alive until it is sent."""
    payload = Payload(dtype=name_of(tensor.dtype), shape=tuple(tensor.shape), nbytes=num_bytes)
    flat = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
    return Staged(payload=payload, frame=flat.numpy().data)
