"""What a rank that follows was told to fetch: here before it is taken, or an error in its place.

One that stays away although nothing else comes from its sender ends with an error: whoever waits
for it hears of it, and the rest goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from epd.engine.ranks.ends import Kind
from epd.errors import EpdError, ProtocolError, Unavailable
from epd.transfer.incoming import Incoming
from epd.types import Member
from epd.wire.messages import Payload
from epd.workers.rank_links import RankLinks

_NOBODY: Final = "nobody"


@dataclass(frozen=True, slots=True)
class Peer:
    """A worker's rank of our number: its memory, and its sockets where it has any."""

    memory: Member
    sockets: Member | None


@dataclass(slots=True)
class Fetch:
    """One part. `payload` as it is read: from a frame, or from memory over the network."""

    task: int
    source: Peer | None
    kind: Kind
    slot: int
    payload: Payload
    since: float = 0.0
    ended: bool = False
    error: EpdError | None = None


class Fetches:
    """Of one rank; its own thread. `patience_s`: without a part of a peer, its parts end."""

    def __init__(
        self,
        incoming: Incoming,
        links: RankLinks | None,
        patience_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._incoming = incoming
        self._links = links
        self._patience_s = patience_s
        self._clock = clock
        self._all: dict[tuple[int, int], Fetch] = {}  # by peer and slot
        self._heard: dict[int, float] = {}

    @property
    def waits(self) -> bool:
        """Whether settle() is due again soon."""
        return any(not fetch.ended for fetch in self._all.values())

    def begin(self, peer: int, fetch: Fetch) -> None:
        """Ask for it."""
        fetch.since = self._clock()
        self._all[peer, fetch.slot] = fetch
        try:
            if fetch.source is None:
                raise ProtocolError("payload", "of a worker that was not met")
            if fetch.kind is Kind.SOCKET:
                links, sockets = self._sockets(fetch)
                links.ask(sockets, fetch.slot, fetch.payload)
            else:
                self._incoming.arrived(fetch.source.memory, fetch.payload)
        except EpdError as error:
            fetch.error = error

    def settle(self) -> Iterator[int]:
        """Tasks of those that are here, or that have an error by now."""
        now = self._clock()
        waiting = [(peer, each) for (peer, _), each in self._all.items() if not each.ended]
        for peer, fetch in waiting:
            if fetch.error is None and self._is_here(fetch):
                fetch.ended, self._heard[peer] = True, now
        for peer, fetch in waiting:
            since = max(fetch.since, self._heard.get(peer, fetch.since))
            if not fetch.ended and fetch.error is None and now - since > self._patience_s:
                self._let_go(fetch)
                name = fetch.source.memory.name if fetch.source else _NOBODY
                fetch.error = Unavailable(f"nothing came from {name} for {now - since:.1f} s")
            if fetch.error is not None:
                fetch.ended = True
            if fetch.ended:
                yield fetch.task

    def _is_here(self, fetch: Fetch) -> bool:
        assert fetch.source is not None
        if fetch.kind is Kind.SOCKET:
            links, sockets = self._sockets(fetch)
            return links.arrived(sockets.name, fetch.slot)
        return self._incoming.arrived(fetch.source.memory, fetch.payload)

    def take(self, peer: int, slot: int) -> memoryview | None:
        """The frame that settle() spoke of; None where Incoming has the bytes. Raises why there
        are none."""
        fetch = self._all.pop((peer, slot), None)
        if fetch is None or not fetch.ended:
            raise ProtocolError("payload", "a part that was not fetched")
        if fetch.error is not None:
            self._let_go(fetch)
            raise fetch.error
        if fetch.kind is not Kind.SOCKET:
            return None
        links, sockets = self._sockets(fetch)
        return links.take(sockets.name, slot)

    def discard(self, peer: int, slot: int) -> int | None:
        """Its task, where nobody was told of its end; it is not needed."""
        fetch = self._all.pop((peer, slot), None)
        if fetch is None:
            return None
        self._let_go(fetch)
        return None if fetch.ended else fetch.task

    def forget(self, peer: int) -> Iterator[int]:
        """The peer is gone. Tasks that nobody was told of."""
        self._heard.pop(peer, None)
        for _, slot in [key for key in self._all if key[0] == peer]:
            task = self.discard(peer, slot)
            if task is not None:
                yield task

    def _let_go(self, fetch: Fetch) -> None:
        if fetch.source is None:
            return
        if fetch.kind is not Kind.SOCKET:
            self._incoming.discard(fetch.source.memory.name, fetch.payload)
        elif self._links is not None and fetch.source.sockets is not None:
            self._links.drop(fetch.source.sockets.name, fetch.slot)

    def _sockets(self, fetch: Fetch) -> tuple[RankLinks, Member]:
        if self._links is None or fetch.source is None or fetch.source.sockets is None:
            raise ProtocolError("payload", "a part for sockets that are not there")
        return self._links, fetch.source.sockets
