"""The part of a node that is the same over any transport: its peers, their queues, its thread.

A transport subclasses `BaseLinks` and moves bytes on the one I/O thread; every other thread only
touches the queues here, under one lock that is never held while anything waits.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from threading import Event, Lock, Thread
from typing import Final

from epd.errors import ProtocolError
from epd.types import Member
from epd.wire.codec import encode
from epd.wire.links import (
    BULK_MESSAGES,
    Buffer,
    Delivery,
    OnIo,
    PeerLost,
    Sink,
    check_frame,
    check_name,
    identity_of,
    new_incarnation,
)
from epd.wire.messages import Register
from epd.wire.reception import RETRY_S, Reception

log = logging.getLogger(__name__)

FLUSH_S: Final = 0.5  # how long close() goes on sending


@dataclass(eq=False, slots=True)
class Lane:
    """Messages queued for one address of one peer. Only the I/O thread takes them out."""

    address: str
    queue: deque[tuple[Buffer, ...]] = field(default_factory=deque)
    taken: int = 0  # messages ever queued here
    scheduled: bool = False  # stands in the list of lanes to flush, or waits for its socket


@dataclass(eq=False, slots=True)
class Peer:
    """A node that messages may be sent to. `incarnation` "": known by its address alone.

    `bulk` lanes take turns: what goes there may arrive in any order.
    """

    name: str
    incarnation: str
    control: Lane
    bulk: Sequence[Lane] = ()
    lost: bool = False

    def lanes(self) -> list[Lane]:
        """Those that there are."""
        return [self.control, *self.bulk]

    def next_bulk(self) -> Lane | None:
        """The one whose turn it is; first of all one that is not held up."""
        return min(self.bulk, key=lambda lane: (len(lane.queue), lane.taken), default=None)


class BaseLinks(ABC):
    """Peers and queues; see `Links` for the promises."""

    control: str
    bulk: str

    def __init__(
        self,
        name: str,
        inbox: Sink,
        *,
        on_io: OnIo | None,
        high_water: int,
        max_message_bytes: int,
        grace_s: float,
    ) -> None:
        self.name = check_name(name)
        self.incarnation = new_incarnation()
        self._num_connections = count()
        self.reception = Reception(
            self.incarnation, self, inbox, on_io=on_io, reply=self._reply, grace_s=grace_s
        )
        self._high_water = high_water
        self._max_message_bytes = max_message_bytes
        self._lock = Lock()
        self._peers: dict[str, Peer] = {}  # by name; by address until its Welcome
        self._admitted: dict[str, str] = {}  # name: incarnation that welcomed us
        self._opened: deque[tuple[Peer, Lane]] = deque()
        self._closed_peers: deque[Peer] = deque()
        self._to_flush: deque[Lane] = deque()
        self._stop_at: float | None = None
        self._closing = Event()
        self._thread: Thread | None = None

    # ---- any thread

    def start(self) -> None:
        """Begin to receive and to send."""
        assert self._thread is None and self._stop_at is None
        self._thread = Thread(target=self._run, name=f"io-{self.name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Send what is queued for at most half a second, then free everything. Idempotent."""
        with self._lock:
            self._closing.set()
            first = self._stop_at is None
            if first:
                self._stop_at = time.monotonic() + FLUSH_S
                self._wake()
        if self._thread is not None:
            self._thread.join()
        elif first:
            self._free()

    def connect(self, member: Member) -> None:
        """Know this peer; a new incarnation of its name replaces the old one."""
        if member.name == self.name:
            return
        self._check_address(member.control)
        if member.bulk:
            self._check_address(member.bulk)
        with self._lock:
            if self._stop_at is not None:
                return
            self._admitted.pop(member.name, None)
            peer = self._peers.get(member.name)
            if peer is not None and peer.incarnation != member.incarnation:
                self._remove(member.name)
                peer = None
            if peer is None:
                peer = self._take_over(member) or self._add(member.name, member.control)
                peer.incarnation = member.incarnation
            if not peer.bulk and member.bulk and not peer.lost:
                peer.bulk = [Lane(member.bulk) for _ in range(self._num_bulk(member.bulk))]
                self._opened += [(peer, lane) for lane in peer.bulk]
            self._wake()

    def connect_unknown(self, address: str) -> None:
        """Know a peer by its control address alone."""
        self._check_address(address)
        with self._lock:
            known = self._peers.get(address)
            if self._stop_at is None and (known is None or known.lost):
                self._add(address, address)
                self._wake()

    def forget(self, name: str) -> None:
        """Drop this peer and all that is queued for it."""
        with self._lock:
            self._admitted.pop(name, None)
            peer = self._peers.get(name)
            if peer is None or self._stop_at is not None:
                return
            if peer.incarnation and peer.name != name:
                del self._peers[name]  # only the address that it was registered at
            else:
                self._remove(name)
                self._wake()

    def send(self, to: str, message: object, frame: Buffer | None = None) -> bool:
        """Queue a message; never blocks."""
        peer = self._peers.get(to)
        if peer is None or self._room(peer, message) is None:
            return False
        parts = self._parts(message, frame, to=peer.incarnation)
        with self._lock:
            lane = self._room(peer, message)
            if lane is None or self._peers.get(to) is not peer:
                return False
            lane.queue.append(parts)
            lane.taken += 1
            if not lane.scheduled:
                lane.scheduled = True
                self._to_flush.append(lane)
                self._wake()
        return True

    def counters(self) -> dict[str, int]:
        """Totals since the start."""
        return self.reception.counters()

    # ---- what the reception asks

    def knows(self, name: str, incarnation: str) -> bool:
        """Whether this incarnation may talk to us."""
        peer = self._peers.get(name)
        if peer is not None and peer.incarnation == incarnation:
            return True
        return self._admitted.get(name) == incarnation

    def expects_welcome(self) -> bool:
        """Whether a registration is under way."""
        return any(not peer.incarnation for peer in list(self._peers.values()))

    def admit(self, name: str, incarnation: str, *, via: str) -> None:
        """The registration sent to `via` was answered: who is there has a name now."""
        if self.knows(name, incarnation):
            return
        with self._lock:
            self._admitted[name] = incarnation
            unknown = self._peers.get(via)
            if unknown is not None and not unknown.incarnation and name not in self._peers:
                unknown.name, unknown.incarnation = name, incarnation
                self._peers[name] = unknown

    # ---- under the lock

    def _add(self, key: str, address: str) -> Peer:
        peer = self._peers[key] = Peer(key, "", Lane(address))
        self._opened.append((peer, peer.control))
        return peer

    def _take_over(self, member: Member) -> Peer | None:
        """The link that registered at this member's address, if there is one."""
        peer = self._peers.get(member.control)
        if peer is None or peer.incarnation:
            return None
        peer.name = member.name
        self._peers[member.name] = peer
        return peer

    def _remove(self, key: str) -> None:
        """Forget a peer under this key and, where it goes by a name, under its address too."""
        peer = self._peers.pop(key)
        for other in [other for other, found in self._peers.items() if found is peer]:
            del self._peers[other]
        self._closed_peers.append(peer)

    def _room(self, peer: Peer, message: object) -> Lane | None:
        lane = peer.next_bulk() if isinstance(message, BULK_MESSAGES) else peer.control
        if lane is None or peer.lost or self._stop_at is not None:
            return None
        return lane if len(lane.queue) < self._high_water else None

    # ---- the I/O thread

    def _run(self) -> None:
        """The thread's outer barrier: a node that cannot receive must not look alive."""
        failed = False
        try:
            while not self._finished():
                self._turn()
        except Exception:
            log.exception("the I/O thread of %s failed", self.name)
            failed = True
        finally:
            with self._lock:
                self._stop_at = self._stop_at or time.monotonic()
            self._free()
        if failed:
            reason = "the I/O thread failed"
            self.reception.put(
                PeerLost(name=self.name, incarnation=self.incarnation, reason=reason)
            )
            while not self.reception.takes_bulk and not self._closing.wait(RETRY_S):
                self.reception.hand_over()

    def _finished(self) -> bool:
        """What waits for somebody who was never met, a registration, is no reason to stay."""
        if self._stop_at is None:
            return False
        met = [peer for peer in list(self._peers.values()) if peer.incarnation]
        return time.monotonic() >= self._stop_at or not any(
            lane.queue for peer in met for lane in peer.lanes()
        )

    def _patience_s(self) -> float | None:
        """How long a turn may wait for something to happen; None: for ever."""
        patience = self.reception.patience_s()
        if self._stop_at is None:
            return patience
        rest = 0.0 if self._finished() else max(0.0, self._stop_at - time.monotonic())
        return rest if patience is None else min(rest, patience)

    def _lose(self, peer: Peer, reason: str) -> None:
        """A connected peer's connection is gone. Links that still register just try again."""
        if peer.lost or not peer.incarnation:
            return
        with self._lock:
            peer.lost = True
            self._closed_peers.append(peer)
        self.reception.put(PeerLost(name=peer.name, incarnation=peer.incarnation, reason=reason))

    def _reply(self, delivery: Delivery, answer: object) -> bool:
        peer = self._peers.get(delivery.sender)
        if peer is None or peer.incarnation != delivery.incarnation:
            return False
        return self.send(delivery.sender, answer)

    def _parts(self, message: object, frame: Buffer | None, *, to: str) -> tuple[Buffer, ...]:
        view = None if frame is None else memoryview(frame).cast("B").toreadonly()
        check_frame(message, None if view is None else view.nbytes)
        # A registration goes to whoever is there by now.
        header = encode(message, to="" if isinstance(message, Register) else to)
        largest = max(len(header), view.nbytes if view is not None else 0)
        if largest > self._max_message_bytes:
            raise ProtocolError("too_large", f"{largest} bytes, {self._max_message_bytes} allowed")
        return (header,) if view is None else (header, view)

    def _next_identity(self) -> bytes:
        return identity_of(self.name, self.incarnation, next(self._num_connections))

    def _count_sent(self, parts: tuple[Buffer, ...]) -> None:
        with self._lock:
            self.reception.totals.sent += 1
            self.reception.totals.sent_bytes += sum(map(len, parts))

    # ---- a transport's part

    def _num_bulk(self, address: str) -> int:
        """How many lanes there are to a peer's bulk address."""
        return 1

    @abstractmethod
    def _check_address(self, address: str) -> None:
        """ProtocolError or ConfigError unless this node may connect there."""

    @abstractmethod
    def _wake(self) -> None:
        """End the I/O thread's wait. Called under the lock."""

    @abstractmethod
    def _turn(self) -> None:
        """Do what there is to do, or wait for it."""

    @abstractmethod
    def _free(self) -> None:
        """Give every resource back; the last thing that happens."""
