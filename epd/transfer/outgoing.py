"""The sender's side: tensors are read from memory that is shared, or go along as frames.

One that keep() put there is read where it is, by whoever asks; of any other a copy waits there for
its receiver. Memory that is lent is reused only when its receivers gave it back or are lost. In
shared memory one may have been lost by mistake and still read: before the bytes of a slot stands a
stamp, which is wiped first and which the receiver looks at last. For a GPU's memory see
`epd.transfer.cuda_ipc`.
"""

from __future__ import annotations

import mmap
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Final

import numpy as np
import torch

from epd.transfer import segments
from epd.transfer.arena import Arena, Slot
from epd.transfer.cuda_ipc import DeviceArena
from epd.transfer.dtypes import name_of
from epd.transfer.lending import Kept, Lending
from epd.transfer.nixl import RemoteAgent
from epd.transfer.parts import Parts
from epd.transfer.runtime import DeviceRuntime, Mark
from epd.transfer.ways import Route, Way
from epd.types import Remote
from epd.wire.messages import Payload

SHARES: Final = 8
"""Chunks that an arena has room for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """What a bulk message carries: its payload, and the raw frame if it is not in an arena.

    It may go once the bytes have come from the GPU, where they do.
    """

    payload: Payload
    frame: memoryview | None
    mark: Mark | None = None

    @property
    def ready(self) -> bool:
        """Whether it may be sent. Does not wait."""
        return self.mark is None or self.mark.done()


class Outgoing:
    """The arenas of one process. Not thread-safe: its owner calls it from one thread.

    Receivers are called by any string that is the same in stage(), give_back() and peer_lost().
    With a `runtime`, tensors may be on its GPU, and `device_bytes` of its memory are lent. With an
    `agent`, other hosts read the arena; `remote` tells them how.
    """

    def __init__(
        self,
        *,
        arena_bytes: int,
        runtime: DeviceRuntime | None = None,
        device_bytes: int = 0,
        agent: RemoteAgent | None = None,
    ) -> None:
        self.segment = ""
        self.on_wiped: Callable[[int], None] = _nobody  # is to do so too, before it is used anew
        self.on_withdrawn: Callable[[int], None] = _nobody  # is to let go of parts of this number
        self.ignored = 0  # give-backs of slots that were not lent to who gave them back
        self._runtime = runtime
        numbers = count()
        self._parts = Parts(numbers, lambda number: self.on_withdrawn(number))
        self._lending = Lending(Arena(arena_bytes, numbers), self._wipe)
        if arena_bytes > 0:
            self.segment, self._file = segments.create(arena_bytes)
            self._map = mmap.mmap(self._file, arena_bytes)
            self._bytes = torch.frombuffer(self._map, dtype=torch.uint8)
            if runtime is not None:
                runtime.pin(self._bytes)
        self.remote: Remote | None = None
        self._agent = agent  # the arena can be read as long as it lives
        if agent is not None and self.segment:
            agent.register(self._bytes)
            address = self._bytes.data_ptr()
            self.remote = Remote(metadata=agent.metadata, address=address, num_bytes=arena_bytes)
        self._device: DeviceArena | None = None
        if runtime is not None and device_bytes > 0:
            self._device = DeviceArena(runtime, device_bytes, numbers)

    @property
    def handle(self) -> bytes:
        """What opens the memory that is lent of a GPU; b"" where none is."""
        return b"" if self._device is None else self._device.handle

    def chunk_bytes(self, frame_bytes: int, route: Route) -> int:
        """How much to stage at once: each chunk costs a message there and one back.

        `frame_bytes` where chunks travel as frames; a share of the arena where they wait in it, so
        that one is copied in while another is copied out.
        """
        if route.way is Way.FRAMES:
            return frame_bytes
        share = self._lending.arena.num_bytes // SHARES - segments.STAMP_BYTES
        if route.way is Way.CUDA_IPC and self._device is not None:
            share = self._device.num_bytes // SHARES
        # What each rank has of it never becomes a frame: it may have no sockets of its own.
        return share if route.ranks > 1 else max(frame_bytes, share)

    def keep(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy with memory of its own; in an arena where that has room, for as long as it lives.

        It may die in any thread.
        """
        if self._on_host(tensor):
            kept = self._keep_shared(tensor)
        else:
            kept = None if self._device is None else self._device.keep(tensor)
        return tensor.clone(memory_format=torch.contiguous_format) if kept is None else kept

    def _keep_shared(self, tensor: torch.Tensor) -> torch.Tensor | None:
        slot = self._lending.keep(segments.STAMP_BYTES + tensor.nbytes) if tensor.nbytes else None
        if slot is None:
            return None
        gone = partial(self._lending.gone, slot.number)
        memory = _Memory(self._stamped(slot, tensor.nbytes), gone)
        copy = torch.from_numpy(np.asarray(memory)).view(tensor.dtype).view(tensor.shape)
        return copy.copy_(tensor)

    def keeps(self, tensor: torch.Tensor, route: Route) -> bool:
        """Whether its bytes are where a receiver on this route can read them."""
        if route.way is Way.CUDA_IPC and self._device is not None:
            return self._device.offset(tensor) is not None
        return route.way is not Way.FRAMES and self._kept_of(tensor) is not None

    @property
    def kept_bytes(self) -> int:
        """What kept tensors take, in all arenas."""
        return self._lending.kept_bytes + (self._device.kept_bytes if self._device else 0)

    @property
    def in_use(self) -> int:
        """Bytes lent now in all arenas, those that are kept not."""
        return self._lending.in_use + (self._device.in_use if self._device else 0)

    def stage(self, tensor: torch.Tensor, *, to: str, route: Route) -> Staged | None:
        """Put a tensor, contiguous, where its receiver reads it. Nobody may write to it again.

        None: the arena is full now, try again after a give_back or a peer_lost.
        """
        if route.way is Way.FRAMES or not tensor.nbytes:
            return self.as_frame(tensor)
        dtype = name_of(tensor.dtype)
        device = self._device if route.way is Way.CUDA_IPC else None
        if device and not self._on_host(tensor) and device.could_fit(tensor.nbytes):
            payload = device.stage(tensor, dtype=dtype, to=to, lease=route.lease)
            return None if payload is None else Staged(payload=payload, frame=None)
        if not self._lending.arena.could_fit(segments.STAMP_BYTES + tensor.nbytes):
            return self.as_frame(tensor)
        return self._as_slot(tensor, dtype, to, remote=route.way is Way.NIXL)

    def _as_slot(self, tensor: torch.Tensor, dtype: str, to: str, *, remote: bool) -> Staged | None:
        kept, mark = self._kept_of(tensor), None
        if kept is not None:
            slot, kept_at = kept.slot, kept.slot.offset
            kept.readers[to] += 1
            offset = tensor.data_ptr() - self._bytes.data_ptr()
        else:
            lent = self._lending.lend(segments.STAMP_BYTES + tensor.nbytes, to=to)
            if lent is None:
                return None
            slot, kept_at = lent, -1
            place = self._stamped(slot, tensor.nbytes).view(tensor.dtype).view(tensor.shape)
            mark = self._copy_out(tensor, place)
            offset = slot.offset + segments.STAMP_BYTES
        payload = Payload(
            dtype=dtype,
            shape=tuple(tensor.shape),
            nbytes=tensor.nbytes,
            slot=slot.number,
            offset=offset,
            kept_at=kept_at,
            remote=remote,
        )
        return Staged(payload=payload, frame=None, mark=mark)

    def as_frame(self, tensor: torch.Tensor) -> Staged:
        """Not copied where that can be helped: the frame keeps its memory until it is sent."""
        dtype = name_of(tensor.dtype)
        payload = Payload(dtype=dtype, shape=tuple(tensor.shape), nbytes=tensor.nbytes)
        tensor, mark = tensor.detach(), None
        if self._runtime is not None and tensor.nbytes and not self._on_host(tensor):
            flat = self._runtime.host_bytes(tensor.nbytes)
            mark = self._runtime.download(tensor, flat.view(tensor.dtype).view(tensor.shape))
        else:
            flat = tensor.cpu().contiguous().view(-1).view(torch.uint8)
        return Staged(payload=payload, frame=flat.numpy().data, mark=mark)

    def _copy_out(self, tensor: torch.Tensor, place: torch.Tensor) -> Mark | None:
        """To host memory; None where the copy is done."""
        if self._runtime is not None and not self._on_host(tensor):
            return self._runtime.download(tensor, place)
        place.copy_(tensor)
        return None

    def with_parts(self, payload: Payload, ranks: int, *, to: str) -> Payload:
        """What was staged, and of the other ranks theirs: at the same place of their arenas, or
        under a number until it is given back."""
        if payload.lent:
            return replace(payload, ranks=ranks)
        return replace(payload, ranks=ranks, parts=self._parts.lend(to))

    def mirror(self, tensor: torch.Tensor, *, slot: int, offset: int, device: bool) -> Mark | None:
        """Put it where rank 0 staged its own part, in arenas of the same sizes. None: it is done,
        or will be in stream order for readers on a GPU."""
        if device:
            assert self._device is not None
            self._device.put(tensor, offset)
            return None
        self._map[offset - segments.STAMP_BYTES : offset] = segments.stamp(self.segment, slot)
        place = self._bytes[offset : offset + tensor.nbytes]
        return self._copy_out(tensor, place.view(tensor.dtype).view(tensor.shape))

    def wipe(self, offset: int) -> None:
        """What begins there is not lent any more."""
        if self.segment:
            self._map[offset : offset + segments.STAMP_BYTES] = bytes(segments.STAMP_BYTES)

    def take_back(self, staged: Staged, *, to: str) -> None:
        """What was staged is not sent after all. Waits for bytes that still come from the GPU."""
        if staged.mark is not None:
            staged.mark.wait()
        if staged.payload.number >= 0:
            self.give_back(staged.payload.number, by=to)

    def give_back(self, slot: int, *, by: str) -> None:
        """The receiver reads it no more. Ignored and counted unless the slot was lent to it."""
        if self._lending.give_back(slot, by=by) or self._parts.give_back(slot, by=by):
            return
        if self._device is None or not self._device.give_back(slot, by=by):
            self.ignored += 1

    def peer_lost(self, name: str) -> None:
        """It is dead or was told that it is forgotten: what it reads of its slots is void."""
        self._parts.lost(name)
        self._lending.lost(name)
        if self._device is not None:
            self._device.peer_lost(name)

    def close(self) -> None:
        """Remove the segment. A GPU's memory is free when this process has ended. Idempotent."""
        if not self.segment:
            return
        self._lending.reap()
        if self._runtime is not None:
            self._runtime.unpin(self._bytes)
        del self._bytes  # the mapping cannot be closed while a tensor shows into it
        if not self._lending.any_kept:  # else it goes with the last of them
            self._map.close()
        del self._map
        segments.remove(self.segment, self._file)
        self.segment = ""
        self._lending = Lending(Arena(0), self._wipe)

    def _on_host(self, tensor: torch.Tensor) -> bool:
        on_cpu = tensor.device.type == "cpu"
        return on_cpu if self._runtime is None else self._runtime.on_host(tensor)

    def _stamped(self, slot: Slot, num_bytes: int) -> torch.Tensor:
        """The bytes behind its stamp."""
        offset = slot.offset + segments.STAMP_BYTES
        self._map[slot.offset : offset] = segments.stamp(self.segment, slot.number)
        return self._bytes[offset : offset + num_bytes]

    def _wipe(self, slot: Slot) -> None:
        self.wipe(slot.offset)
        self.on_wiped(slot.offset)

    def _kept_of(self, tensor: torch.Tensor) -> Kept | None:
        """What is kept and has all of it."""
        if not self._lending.any_kept or not self._on_host(tensor) or not tensor.is_contiguous():
            return None
        return self._lending.kept_at(tensor.data_ptr() - self._bytes.data_ptr())


def _nobody(number: int) -> None:
    """There are no other ranks."""


class _Memory:
    """Shows bytes of the arena to numpy; gone once no tensor needs them any more."""

    def __init__(self, place: torch.Tensor, gone: Callable[[], None]) -> None:
        self.__array_interface__ = place.numpy().__array_interface__
        self.place = place
        weakref.finalize(self, gone).atexit = False
