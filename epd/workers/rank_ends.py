"""What a rank that follows lends to, and takes from, other workers' ranks of its number.

It has arenas as rank 0 has, and the same places in them, and sockets for what does not go by
memory; all messages about requests are rank 0's. What it was told to do is answered when nothing of
it is read or written any more: a slot is given back once all ranks have answered.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from epd.config import Config
from epd.engine.ranks.ends import FETCHED, Kind, Place
from epd.errors import EpdError, InternalError, ProtocolError, Unavailable
from epd.transfer.incoming import Incoming
from epd.transfer.nixl import NixlAgent, RemoteReader, pulled_bytes
from epd.transfer.outgoing import Outgoing, Staged
from epd.transfer.runtime import DeviceRuntime, Mark
from epd.transfer.segments import unlink
from epd.transfer.ways import of_rank, sockets_of
from epd.types import Gpu, Rank
from epd.wire.messages import Payload
from epd.workers.fetches import Fetch, Fetches, Peer
from epd.workers.introductions import unpacked
from epd.workers.places import payload_at
from epd.workers.rank_links import RankLinks

Tell = Callable[[int, EpdError | None], None]
"""A task was done, or ended with this."""

PATIENCE_S = 5.0
"""For how long a peer may send nothing of what was asked for, unless somebody says so."""


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
        links: RankLinks | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._rank = rank
        self._tell = tell
        self._outgoing = outgoing
        self._incoming = incoming
        self._runtime = runtime
        self._links = links
        self._fetches = Fetches(incoming, links, patience_s)
        self._peers: dict[int, Peer] = {}
        self._copying: deque[tuple[Mark, Callable[[], None]]] = deque()
        self.bytes_taken = 0

    @property
    def bytes_sent(self) -> int:
        """By sockets of its own; who reads its memory counts that."""
        return 0 if self._links is None else self._links.bytes_sent

    @property
    def facts(self) -> Rank:
        """What others may know of it."""
        lends, reads = self._outgoing.handle, self._incoming.lease
        gpu = None
        if self._runtime is not None and (lends or reads):
            reaches = self._runtime.reaches if reads else ()
            gpu = Gpu(device=self._runtime.device, reaches=reaches, lease=reads, handle=lends)
        sockets = Rank() if self._links is None else self._links.facts
        return replace(
            sockets,
            segment=self._outgoing.segment,
            gpu=gpu,
            remote=self._outgoing.remote or self._incoming.remote,
        )

    def meet(self, peer: int, member: bytes) -> None:
        """See Ends."""
        if member:
            found, rank = unpacked(member), self._rank
            has_sockets = bool(found.ranks[rank - 1].bulk)
            sockets = sockets_of(found, rank) if has_sockets else None
            self._peers[peer] = Peer(of_rank(found, rank), sockets)
            return
        for task in self._fetches.forget(peer):
            self._tell(task, None)  # nobody takes it
        gone = self._peers.pop(peer, None)
        if gone is not None:
            self._incoming.forget(gone.memory.name)
        if gone is not None and gone.sockets is not None and self._links is not None:
            self._links.forget(gone.sockets.name)

    def lend(self, task: int, peer: int, place: Place, kv: torch.Tensor) -> None:
        """See Ends."""
        if kv.nbytes != place.num_bytes:
            raise InternalError(f"{kv.nbytes} bytes for a place of {place.num_bytes}")
        done = partial(self._tell, task, None)
        if place.kind is Kind.SOCKET:
            part = self._outgoing.as_frame(kv)
            mark, done = part.mark, partial(self._keep, task, peer, place.slot, part)
        else:
            device = place.kind is Kind.DEVICE
            mark = self._outgoing.mirror(kv, slot=place.slot, offset=place.offset, device=device)
        if mark is None:
            done()
        else:
            self._copying.append((mark, done))

    def _keep(self, task: int, peer: int, number: int, part: Staged) -> None:
        to = self._peers[peer].sockets if peer in self._peers else None
        if self._links is None or to is None:
            raise InternalError("a part to be kept for sockets that are not there")
        self._links.keep(number, to, part)
        self._tell(task, None)

    def withdraw(self, number: int) -> None:
        """See Ends."""
        if self._links is not None:
            self._links.withdraw(number)

    def wipe(self, offset: int) -> None:
        """See Ends."""
        self._outgoing.wipe(offset)

    def expect(self, task: int, peer: int, place: Place, like: torch.Tensor) -> None:
        """See Ends."""
        source, payload = self._peers.get(peer), payload_at(place, like)
        self._fetches.begin(peer, Fetch(task, source, place.kind, place.slot, payload))
        self.settle()

    def discard(self, peer: int, slot: int) -> None:
        """See Ends."""
        task = self._fetches.discard(peer, slot)
        if task is not None:
            self._tell(task, None)

    def take(
        self,
        task: int,
        peer: int,
        place: Place,
        like: torch.Tensor,
        use: Callable[[torch.Tensor], object],
    ) -> None:
        """See Ends."""
        answer = _Answer(partial(self._tell, task))
        try:
            self._use(peer, place, payload_at(place, like), answer, use)
        except EpdError as error:
            # A new one: the frames of this one keep what is read.
            kind = Unavailable if isinstance(error, Unavailable) else InternalError
            answer.error = kind(f"rank {self._rank}: {error.message}")
        else:
            self.bytes_taken += place.num_bytes
        answer.used()

    def _use(
        self,
        peer: int,
        place: Place,
        payload: Payload,
        answer: _Answer,
        use: Callable[[torch.Tensor], object],
    ) -> None:
        source = self._peers.get(peer)
        if source is None:
            raise ProtocolError("payload", f"of a worker that rank {self._rank} has not met")
        frame = self._fetches.take(peer, place.slot) if place.kind in FETCHED else None
        answer.is_read = True  # until its unread() is called, which also follows an error
        found = self._incoming.take(source.memory, payload, frame, answer.unread)
        use(found.tensor)
        found.check()

    @property
    def waits(self) -> bool:
        """Whether settle() is due again soon."""
        return bool(self._copying) or self._incoming.waits or self._fetches.waits

    def settle(self) -> None:
        """Answer what is done by now. Never waits."""
        self._incoming.settle()
        if self._links is not None:
            self._links.check()
        for task in self._fetches.settle():
            self._tell(task, None)
        while self._copying and self._copying[0][0].done():
            self._copying.popleft()[1]()

    def leave(self) -> None:
        """This process ends now, by another thread's decision: no name of memory or of a socket
        stays behind."""
        for name in filter(None, (self._outgoing.segment, self._incoming.lease)):
            unlink(name)
        if self._links is not None:
            self._links.close()


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


def rank_ends(
    role: str,
    config: Config,
    device: str,
    rank: int,
    tell: Tell,
    links: RankLinks | None = None,
) -> RankEnds:
    """Of a rank of this role, with arenas as its rank 0 has; they end with its process."""
    wire = config.wire
    sends, reads = role == "prefill", role == "decode"
    runtime = None
    if device.startswith("cuda") and wire.device_bytes and (sends or reads):
        from epd.transfer.cuda import CudaRuntime

        runtime = CudaRuntime(device)
    agent = None
    if wire.nixl and (sends or reads):
        agent = NixlAgent(f"{role}-{rank}-{secrets.token_hex(8)}")
    outgoing = Outgoing(
        arena_bytes=wire.shm_bytes if sends else 0,
        runtime=runtime,
        device_bytes=wire.device_bytes if sends else 0,
        agent=agent if sends else None,
    )
    reader = None
    if agent is not None and reads:
        reader = RemoteReader(agent, pulled_bytes(wire.shm_bytes))
    incoming = Incoming(runtime if reads else None, reader)
    return RankEnds(
        rank,
        tell,
        outgoing=outgoing,
        incoming=incoming,
        runtime=runtime,
        links=links,
        patience_s=wire.dead_after_s,
    )
