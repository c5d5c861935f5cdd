"""Bulk sends of one worker: chunks are produced only when there is room to stage them.

Peers take turns, so one slow receiver never blocks another. Runs on the step thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from epd.transfer.outgoing import Outgoing, Staged
from epd.types import ItemKey, RequestKey
from epd.wire.links import Links
from epd.wire.messages import Payload


@dataclass(frozen=True, slots=True)
class Chunk:
    """One bulk message to be: `read` copies the bytes out, `message` wraps their payload."""

    read: Callable[[], torch.Tensor]
    message: Callable[[Payload], Any]


@dataclass(frozen=True, slots=True)
class _Gathered:
    """The chunk that is a peer's next: read, and staged once there was room. Neither twice."""

    chunk: Chunk
    tensor: torch.Tensor
    staged: Staged | None = None


class BulkSender:
    """A queue of chunks per peer. `same_host` says whether a peer can read shared memory.

    `frame_bytes`: the size of chunks that travel as frames. `bytes_sent` counts payloads.
    """

    def __init__(
        self,
        links: Links,
        outgoing: Outgoing,
        same_host: Callable[[str], bool],
        frame_bytes: int,
    ) -> None:
        self._links = links
        self._outgoing = outgoing
        self._same_host = same_host
        self._frame_bytes = frame_bytes
        self._queues: dict[str, deque[tuple[RequestKey | ItemKey, Iterator[Chunk]]]] = {}
        self._pending: dict[str, _Gathered] = {}
        self._refused = False
        self.bytes_sent = 0

    def chunk_bytes(self, to: str, tensor: torch.Tensor | None = None) -> int:
        """How large chunks for this peer should be; all of a tensor that it reads where it is."""
        same_host = self._same_host(to)
        if same_host and tensor is not None and self._outgoing.keeps(tensor):
            return tensor.nbytes
        return self._outgoing.chunk_bytes(self._frame_bytes, same_host=same_host)

    def add(self, to: str, key: RequestKey | ItemKey, chunks: Iterator[Chunk]) -> None:
        """Queue chunks behind what the peer waits for already."""
        self._queues.setdefault(to, deque()).append((key, chunks))

    def drop(self, key: RequestKey | ItemKey) -> None:
        """Forget what has not been staged."""
        for to, queue in list(self._queues.items()):
            if queue and queue[0][0] == key:
                self._forget(to)
            self._queues[to] = deque(entry for entry in queue if entry[0] != key)

    def _forget(self, to: str) -> None:
        gathered = self._pending.pop(to, None)
        if gathered is not None and gathered.staged is not None:
            self._give_back(gathered.staged, to)

    def _give_back(self, staged: Staged, to: str) -> None:
        if staged.payload.lent:
            self._outgoing.give_back(staged.payload.slot, by=to)

    def peer_lost(self, name: str) -> None:
        """The peer died: so did its queue, and its shared-memory slots are free."""
        self._queues.pop(name, None)
        self._pending.pop(name, None)
        self._outgoing.peer_lost(name)

    @property
    def refused(self) -> bool:
        """A peer's link took no more, and will not say when it does.

        Room in the arena needs no such question: it comes with a message.
        """
        return self._refused

    @property
    def num_sends(self) -> int:
        """Entries queued, for all peers."""
        return sum(map(len, self._queues.values()))

    def pump(self) -> bool:
        """Send what fits now, one chunk per peer and turn. False: nothing could move."""
        moved = self._refused = False
        while any([self._send_one(to) for to in list(self._queues)]):
            moved = True
        return moved

    def _send_one(self, to: str) -> bool:
        gathered = self._pending.pop(to, None) or self._gather(to)
        if gathered is None:
            return False
        chunk, tensor, staged = gathered.chunk, gathered.tensor, gathered.staged
        if staged is None:
            staged = self._outgoing.stage(tensor, to=to, same_host=self._same_host(to))
        if staged is None:
            self._pending[to] = gathered
            return False
        if not self._links.send(to, chunk.message(staged.payload), staged.frame):
            self._pending[to] = _Gathered(chunk, tensor, staged)
            self._refused = True
            return False
        self.bytes_sent += staged.payload.nbytes
        return True

    def _gather(self, to: str) -> _Gathered | None:
        chunk = self._next(to)
        return None if chunk is None else _Gathered(chunk, chunk.read())

    def _next(self, to: str) -> Chunk | None:
        queue = self._queues.get(to)
        while queue:
            chunk = next(queue[0][1], None)
            if chunk is not None:
                return chunk
            queue.popleft()
        self._queues.pop(to, None)
        return None
