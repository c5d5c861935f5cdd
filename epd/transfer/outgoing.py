"""The sender's side: a copy of each tensor waits in shared memory, or it goes along as a frame.

Memory that is lent is reused only when its receiver gave it back or is lost. It may have been lost
by mistake and still read: before the bytes of a slot stands a stamp, which is wiped first and which
the receiver looks at last.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Final

import torch

from epd.transfer import segments
from epd.transfer.arena import Arena
from epd.transfer.dtypes import name_of
from epd.wire.messages import Payload

SHARES: Final = 8
"""Chunks that an arena has room for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """What a bulk message carries: its payload, and the raw frame if it is not in the arena."""

    payload: Payload
    frame: memoryview | None


class Outgoing:
    """An arena of one process. Not thread-safe: its owner calls it from one thread.

    Receivers are called by any string that is the same in stage(), give_back() and peer_lost().
    """

    def __init__(self, *, arena_bytes: int) -> None:
        self.segment = ""
        self.ignored = 0  # give-backs of slots that were not lent to who gave them back
        self._arena = Arena(arena_bytes)
        self._quarantined: set[int] = set()
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

    @property
    def in_use(self) -> int:
        """Bytes lent now, the quarantined included."""
        return self._arena.in_use

    @property
    def quarantined(self) -> int:
        """Bytes whose lease expired although nobody gave them back."""
        return sum(s.num_bytes for s in self._arena.slots if s.number in self._quarantined)

    def stage(self, tensor: torch.Tensor, *, to: str, same_host: bool) -> Staged | None:
        """Put a tensor, contiguous, where its receiver reads it. Nobody may write to it again.

        None: the arena is full now, try again after a give_back or a peer_lost.
        """
        dtype = name_of(tensor.dtype)
        num_bytes = tensor.numel() * tensor.element_size()
        stamped = segments.STAMP_BYTES + num_bytes
        if not same_host or not num_bytes or not self._arena.could_fit(stamped):
            return _as_frame(tensor, num_bytes)
        slot = self._arena.lend(stamped, to=to)
        if slot is None:
            return None
        offset = slot.offset + segments.STAMP_BYTES
        self._map[slot.offset : offset] = segments.stamp(self.segment, slot.number)
        place = self._bytes[offset : offset + num_bytes]
        place.view(tensor.dtype).view(tensor.shape).copy_(tensor)
        payload = Payload(
            dtype=dtype,
            shape=tuple(tensor.shape),
            nbytes=num_bytes,
            slot=slot.number,
            offset=offset,
        )
        return Staged(payload=payload, frame=None)

    def give_back(self, slot: int, *, by: str) -> None:
        """The receiver has its copy. Ignored and counted unless the slot was lent to it."""
        if self._arena.lender(slot) != by:
            self.ignored += 1
            return
        self._end(slot)

    def quarantine(self, slot: int) -> None:
        """Its lease expired: stays lent, for the receiver may still be reading; shows as such."""
        if self._arena.lender(slot) is not None:
            self._quarantined.add(slot)

    def peer_lost(self, name: str) -> None:
        """It is dead or was told that it is forgotten: what it reads of its slots is void."""
        for slot in self._arena.slots:
            if slot.to == name:
                self._end(slot.number)

    def close(self) -> None:
        """Remove the segment. Idempotent."""
        if not self.segment:
            return
        del self._bytes  # the mapping cannot be closed while a tensor shows into it
        self._map.close()
        segments.remove(self.segment, self._file)
        self.segment = ""
        self._arena = Arena(0)

    def _end(self, slot: int) -> None:
        self._quarantined.discard(slot)
        offset = self._arena.offset(slot)
        self._map[offset : offset + segments.STAMP_BYTES] = bytes(segments.STAMP_BYTES)
        self._arena.give_back(slot)


def _as_frame(tensor: torch.Tensor, num_bytes: int) -> Staged:
    """Not copied where that can be helped: the frame keeps its memory alive until it is sent."""
    payload = Payload(dtype=name_of(tensor.dtype), shape=tuple(tensor.shape), nbytes=num_bytes)
    flat = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
    return Staged(payload=payload, frame=flat.numpy().data)
