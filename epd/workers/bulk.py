"""Bulk sends of one worker: chunks are produced only when there is room to stage them.

Peers take turns, so one slow receiver never blocks another. Runs on the step thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import torch

from epd.transfer.outgoing import Outgoing, Staged
from epd.transfer.runtime import Mark
from epd.transfer.ways import Route
from epd.types import ItemKey, RequestKey
from epd.wire.links import Links
from epd.wire.messages import Payload

AHEAD: Final = 4
"""Chunks of one peer that come from the GPU at once."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One bulk message to be: `read` copies the bytes out, `message` wraps their payload.

    `beside` has other ranks lend what they have of it, each at the same place.
    """

    read: Callable[[], torch.Tensor]
    message: Callable[[Payload], Any]
    beside: Callable[[Payload], Mark] | None = None


@dataclass(frozen=True, slots=True)
class Both:
    """Our own copy and those of other ranks."""

    first: Mark | None
    second: Mark

    def done(self) -> bool:
        """Whether all are. Does not wait."""
        return (self.first is None or self.first.done()) and self.second.done()

    def wait(self) -> None:
        """Until all are."""
        if self.first is not None:
            self.first.wait()
        self.second.wait()


@dataclass(slots=True)
class _Gathered:
    """A chunk on its way to a peer: read, and staged once there was room. Neither twice."""

    key: RequestKey | ItemKey
    chunk: Chunk
    tensor: torch.Tensor
    staged: Staged | None = None


class BulkSender:
    """A queue of chunks per peer. `route` says how a peer gets them.

    `frame_bytes`: the size of chunks that travel as frames. `bytes_sent` counts payloads. While one
    chunk comes from the GPU the next ones of its peer do too.
    """

    def __init__(
        self,
        links: Links,
        outgoing: Outgoing,
        route: Callable[[str], Route],
        frame_bytes: int,
    ) -> None:
        self._links = links
        self._outgoing = outgoing
        self._route = route
        self._frame_bytes = frame_bytes
        self._queues: dict[str, deque[tuple[RequestKey | ItemKey, Iterator[Chunk]]]] = {}
        self._pending: dict[str, deque[_Gathered]] = {}
        self._refused = False
        self.bytes_sent = 0

    def chunk_bytes(self, to: str, tensor: torch.Tensor | None = None) -> int:
        """How large chunks for this peer should be; all of a tensor that it reads where it is."""
        route = self._route(to)
        if tensor is not None and self._outgoing.keeps(tensor, route):
            return tensor.nbytes
        return self._outgoing.chunk_bytes(self._frame_bytes, route)

    def ranks(self, to: str) -> int:
        """How many ranks of ours this peer takes bytes from."""
        return self._route(to).ranks

    def add(self, to: str, key: RequestKey | ItemKey, chunks: Iterator[Chunk]) -> None:
        """Queue chunks behind what the peer waits for already."""
        self._queues.setdefault(to, deque()).append((key, chunks))

    def drop(self, key: RequestKey | ItemKey) -> None:
        """Forget what has not been sent."""
        for to, queue in list(self._queues.items()):
            self._queues[to] = deque(entry for entry in queue if entry[0] != key)
        for to in list(self._pending):
            self._forget(to, key)

    def _forget(self, to: str, key: RequestKey | ItemKey | None = None) -> None:
        """Chunks that were gathered for a peer: of one key, or all."""
        gathered = self._pending.pop(to, deque())
        gone = [each for each in gathered if key is None or each.key == key]
        for each in gone:
            if each.staged is not None:
                self._outgoing.take_back(each.staged, to=to)
        left = deque(each for each in gathered if each not in gone)
        if left:
            self._pending[to] = left

    def peer_lost(self, name: str) -> None:
        """The peer died: so did its queue, and its slots are free."""
        self._queues.pop(name, None)
        self._forget(name)
        self._outgoing.peer_lost(name)

    @property
    def refused(self) -> bool:
        """A peer's link took no more, or bytes still come from the GPU: neither says when.

        Room in an arena needs no such question: it comes with a message.
        """
        return self._refused

    @property
    def num_sends(self) -> int:
        """Entries queued, for all peers."""
        return sum(map(len, self._queues.values())) + len(self._pending.keys() - self._queues)

    def pump(self) -> bool:
        """Send what fits now, one chunk per peer and turn. False: nothing could move."""
        moved = self._refused = False
        while any([self._send_one(to) for to in dict.fromkeys([*self._pending, *self._queues])]):
            moved = True
        return moved

    def _send_one(self, to: str) -> bool:
        if not self._pending.get(to) and not self._gather(to):
            return False
        gathered = self._pending[to][0]
        staged = self._stage(to, gathered)
        if staged is None:
            return False
        if not staged.ready:
            self._refused = True
            return self._gather_ahead(to)
        if not self._links.send(to, gathered.chunk.message(staged.payload), staged.frame):
            self._refused = True
            return False
        self._pending[to].popleft()
        if not self._pending[to]:
            del self._pending[to]
        self.bytes_sent += staged.payload.nbytes * staged.payload.ranks
        return True

    def _stage(self, to: str, gathered: _Gathered) -> Staged | None:
        if gathered.staged is None:
            route = self._route(to)
            staged = self._outgoing.stage(gathered.tensor, to=to, route=route)
            beside = gathered.chunk.beside
            if staged is not None and beside is not None:
                payload = self._outgoing.with_parts(staged.payload, route.ranks, to=to)
                staged = replace(staged, payload=payload, mark=Both(staged.mark, beside(payload)))
            gathered.staged = staged
        return gathered.staged

    def _gather_ahead(self, to: str) -> bool:
        """Let one more chunk come from the GPU beside those that do. False: enough of them do."""
        pending = self._pending[to]
        if len(pending) < AHEAD and pending[-1].staged is not None and self._gather(to):
            return self._stage(to, pending[-1]) is not None
        return False

    def _gather(self, to: str) -> bool:
        """The peer's next chunk is read. False: there is none."""
        queue = self._queues.get(to)
        while queue:
            key, chunks = queue[0]
            chunk = next(chunks, None)
            if chunk is not None:
                gathered = _Gathered(key, chunk, chunk.read())
                self._pending.setdefault(to, deque()).append(gathered)
                return True
            queue.popleft()
        self._queues.pop(to, None)
        return False
