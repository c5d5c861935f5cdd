"""The memory of a rank that follows: what it lends to, and reads of, other workers' ranks.

It has arenas as rank 0 has, and the same places in them; all messages are rank 0's. What it was
told to do is answered when nothing of it is read or written any more: a slot is given back once all
ranks have answered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

import torch

from epd.config import Config
from epd.engine.ranks.ends import Place
from epd.errors import EpdError, InternalError, ProtocolError, Unavailable
from epd.transfer.dtypes import name_of
from epd.transfer.incoming import Incoming
from epd.transfer.outgoing import Outgoing
from epd.transfer.runtime import DeviceRuntime, Mark
from epd.transfer.segments import host_id, unlink
from epd.transfer.ways import of_rank
from epd.types import Gpu, Member, Rank
from epd.wire.codec import decode, encode
from epd.wire.messages import Members, Payload

Tell = Callable[[int, EpdError | None], None]
"""A task was done, or ended with this."""


def place_of(payload: Payload) -> Place:
    """Where each rank has its part."""
    return Place(payload.slot, payload.offset, payload.nbytes, payload.device)


class RankEnds:
    """See epd.engine.ranks.ends.Ends. One thread, which also calls settle()."""

    def __init__(
        self,
        rank: int,
        tell: Tell,
        *,
        outgoing: Outgoing,
        incoming: Incoming,
        runtime: DeviceRuntime | None = None,
    ) -> None:
        self._rank = rank
        self._tell = tell
        self._outgoing = outgoing
        self._incoming = incoming
        self._runtime = runtime
        self._peers: dict[int, Member] = {}
        self._copying: deque[tuple[Mark, int]] = deque()

    @property
    def facts(self) -> Rank:
        """What others may know of it."""
        lends, reads = self._outgoing.handle, self._incoming.lease
        gpu = None
        if self._runtime is not None and (lends or reads):
            reaches = self._runtime.reaches if reads else ()
            gpu = Gpu(device=self._runtime.device, reaches=reaches, lease=reads, handle=lends)
        return Rank(segment=self._outgoing.segment, gpu=gpu)

    def meet(self, peer: int, member: bytes) -> None:
        """See Ends."""
        if member:
            self._peers[peer] = of_rank(unpacked(member), self._rank)
        elif (gone := self._peers.pop(peer, None)) is not None:
            self._incoming.forget(gone.name)

    def lend(self, task: int, kv: torch.Tensor, place: Place) -> None:
        """See Ends."""
        if kv.nbytes != place.num_bytes:
            raise InternalError(f"{kv.nbytes} bytes for a place of {place.num_bytes}")
        mark = self._outgoing.mirror(kv, slot=place.slot, offset=place.offset, device=place.device)
        if mark is None:
            self._tell(task, None)
        else:
            self._copying.append((mark, task))

    def wipe(self, offset: int) -> None:
        """See Ends."""
        self._outgoing.wipe(offset)

    def take(
        self,
        task: int,
        peer: int,
        place: Place,
        like: torch.Tensor,
        use: Callable[[torch.Tensor], object],
    ) -> None:
        """See Ends."""
        payload = Payload(
            dtype=name_of(like.dtype),
            shape=tuple(like.shape),
            nbytes=place.num_bytes,
            slot=place.slot,
            offset=place.offset,
            device=place.device,
        )
        answer = _Answer(partial(self._tell, task))
        try:
            self._use(peer, payload, answer, use)
        except EpdError as error:
            # A new one: the frames of this one keep what is read.
            kind = Unavailable if isinstance(error, Unavailable) else InternalError
            answer.error = kind(f"rank {self._rank}: {error.message}")
        answer.used()

    def _use(
        self, peer: int, payload: Payload, answer: _Answer, use: Callable[[torch.Tensor], object]
    ) -> None:
        member = self._peers.get(peer)
        if member is None:
            raise ProtocolError("payload", f"of a worker that rank {self._rank} has not met")
        answer.is_read = True  # until its unread() is called, which also follows an error
        found = self._incoming.take(member, payload, None, answer.unread)
        use(found.tensor)
        found.check()

    @property
    def waits(self) -> bool:
        """Whether settle() is due again soon."""
        return bool(self._copying) or self._incoming.waits

    def settle(self) -> None:
        """Answer what is done by now. Never waits."""
        self._incoming.settle()
        while self._copying and self._copying[0][0].done():
            _, task = self._copying.popleft()
            self._tell(task, None)

    def leave(self) -> None:
        """This process ends now, by another thread's decision: no name of memory stays behind."""
        for name in filter(None, (self._outgoing.segment, self._incoming.lease)):
            unlink(name)


class _Answer:
    """Given once: after the bytes were used, or could not be, and when nobody reads them."""

    def __init__(self, tell: Callable[[EpdError | None], None]) -> None:
        self.error: EpdError | None = None
        self.is_read = False
        self._tell = tell
        self._was_used = False

    def unread(self) -> None:
        """Nobody does."""
        self.is_read = False
        self._end()

    def used(self) -> None:
        """They were, or there is an error."""
        self._was_used = True
        self._end()

    def _end(self) -> None:
        if self._was_used and not self.is_read:
            self._tell(self.error)


def rank_ends(role: str, config: Config, device: str, rank: int, tell: Tell) -> RankEnds:
    """Of a rank of this role, with arenas as its rank 0 has; they end with its process."""
    wire = config.wire
    sends, reads = role == "prefill", role == "decode"
    runtime = None
    if device.startswith("cuda") and wire.device_bytes and (sends or reads):
        from epd.transfer.cuda import CudaRuntime

        runtime = CudaRuntime(device)
    outgoing = Outgoing(
        arena_bytes=wire.shm_bytes if sends else 0,
        runtime=runtime,
        device_bytes=wire.device_bytes if sends else 0,
    )
    incoming = Incoming(runtime if reads else None)
    return RankEnds(rank, tell, outgoing=outgoing, incoming=incoming, runtime=runtime)


def packed(member: Member) -> bytes:
    """For another process of this worker."""
    return encode(Members(members=(member,)), to="")


def unpacked(data: bytes) -> Member:
    """What packed() made."""
    _, message = decode(data)
    (member,) = message.members
    assert isinstance(member, Member)
    return member


def introduced(name: str, facts: Rank) -> Member:
    """A rank to its rank 0: nothing but memory."""
    return Member(
        name=name,
        incarnation="",
        stages=(),
        control="",
        bulk="",
        host=host_id(),
        pool="",
        segment=facts.segment,
        gpu=facts.gpu,
    )
