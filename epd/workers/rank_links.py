"""Sockets of a rank that follows: its part of KV, asked for by the rank of its number elsewhere.

Its own ROUTERs and DEALERs, with the rules and keys of all links. Parts are kept until they are
asked for, each sent once; what comes without being asked for is ignored. Any message is answered on
the I/O thread, so that a rank in the middle of a forward keeps nobody waiting.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from threading import Lock

from epd.config import Config
from epd.errors import EpdError, InternalError, ProtocolError, Unavailable
from epd.transfer.outgoing import Staged
from epd.types import Member, Rank
from epd.wire.addresses import parse_listen
from epd.wire.links import Delivery, Links, PeerLost, Sink
from epd.wire.messages import KvPart, PartGone, Payload, PullPart
from epd.wire.zmq_links import ZmqLinks

log = logging.getLogger(__name__)

NAME_LENGTH = 40
"""Of the worker's name at most, in those of its ranks."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """A part, and who may have it."""

    to: Member
    part: Staged


@dataclass(slots=True)
class _Asked:
    """A part on its way here, and what became of it."""

    payload: Payload
    frame: memoryview | None = None
    error: EpdError | None = None


class RankLinks:
    """Who calls is the rank's own thread, but for put(). Members are those of ranks, see
    `epd.transfer.ways.sockets_of`."""

    def __init__(self, make: Callable[[Sink], Links]) -> None:
        self.bytes_sent = 0
        self.ignored = 0  # parts and requests that nobody here waits for, or has
        self._lock = Lock()
        self._met: dict[str, str] = {}  # incarnations of those we are connected to
        self._kept: dict[int, _Kept] = {}
        self._asked: dict[tuple[str, int], _Asked] = {}
        self._broken = ""
        self._links = make(self)

    @property
    def facts(self) -> Rank:
        """Where it listens."""
        links = self._links
        return Rank(
            name=links.name,
            incarnation=links.incarnation,
            control=links.control,
            bulk=links.bulk,
        )

    def start(self) -> None:
        """Receive from now on."""
        self._links.start()

    def close(self) -> None:
        """Free sockets and their files."""
        self._links.close()

    def check(self) -> None:
        """InternalError where nothing can be received any more."""
        if self._broken:
            raise InternalError(self._broken)

    # ---- parts of ours

    def keep(self, number: int, to: Member, part: Staged) -> None:
        """Until it is asked for or withdrawn; its bytes do not change any more."""
        with self._lock:
            self._connect(to)
            self._kept[number] = _Kept(to, part)

    def withdraw(self, number: int) -> None:
        """Nobody needs it, whether or not it was sent."""
        with self._lock:
            self._kept.pop(number, None)

    # ---- parts for us

    def ask(self, member: Member, number: int, payload: Payload) -> None:
        """For one that has the payload's dtype and shape."""
        with self._lock:
            asked = self._asked[member.name, number] = _Asked(payload)
            self._connect(member)
            if not self._links.send(member.name, PullPart(number=number)):
                asked.error = Unavailable(f"{member.name} cannot be asked")

    def arrived(self, name: str, number: int) -> bool:
        """Whether take() has something to say."""
        asked = self._asked[name, number]
        return asked.frame is not None or asked.error is not None

    def take(self, name: str, number: int) -> memoryview:
        """What came. Raises why nothing did."""
        with self._lock:
            asked = self._asked.pop((name, number))
        if asked.error is not None:
            raise asked.error
        assert asked.frame is not None
        return asked.frame

    def drop(self, name: str, number: int) -> None:
        """It is not needed."""
        with self._lock:
            self._asked.pop((name, number), None)

    def forget(self, name: str) -> None:
        """This rank is gone: what is kept for it, and was asked of it, too."""
        with self._lock:
            if self._met.pop(name, None) is not None:
                self._links.forget(name)
            self._kept = {n: kept for n, kept in self._kept.items() if kept.to.name != name}
            self._asked = {key: asked for key, asked in self._asked.items() if key[0] != name}

    def _connect(self, member: Member) -> None:
        if self._met.get(member.name) != member.incarnation:
            self._links.connect(member)
            self._met[member.name] = member.incarnation

    # ---- the I/O thread

    def put(self, event: object) -> bool:
        """See Sink. Never full: what comes has been asked for, or is dropped."""
        with self._lock:
            if isinstance(event, PeerLost):
                self._lost(event)
            elif isinstance(event, Delivery):
                self._deliver(event)
        return True

    def _lost(self, event: PeerLost) -> None:
        if event.name == self._links.name:
            self._broken = event.reason
        elif self._met.get(event.name) == event.incarnation:
            del self._met[event.name]  # whoever needs it connects again
            self._links.forget(event.name)
            log.warning("rank lost name=%s reason=%s", event.name, event.reason)
            for (name, _), asked in self._asked.items():
                if name == event.name and asked.frame is None:
                    asked.error = Unavailable(f"{name}: {event.reason}")

    def _deliver(self, event: Delivery) -> None:
        sender, message = event.sender, event.message
        if isinstance(message, PullPart):
            self._answer(event, message.number)
            return
        asked = None
        if isinstance(message, KvPart | PartGone):
            asked = self._asked.get((sender, message.number))
        if asked is None or asked.frame is not None or asked.error is not None:
            self.ignored += 1
        elif isinstance(message, PartGone):
            asked.error = Unavailable(f"{sender} took its memory back")
        elif message.payload != asked.payload:
            asked.error = ProtocolError("payload", f"{sender} sent another part than asked for")
        else:
            asked.frame = event.frame

    def _answer(self, event: Delivery, number: int) -> None:
        kept = self._kept.get(number)
        asker = event.sender, event.incarnation
        if kept is None or (kept.to.name, kept.to.incarnation) != asker:
            self.ignored += 1
            self._links.send(event.sender, PartGone(number=number))
            return
        self._connect(kept.to)
        payload = kept.part.payload
        if self._links.send(kept.to.name, KvPart(number=number, payload=payload), kept.part.frame):
            del self._kept[number]
            self.bytes_sent += payload.nbytes


def rank_links(role: str, config: Config, rank: int) -> RankLinks | None:
    """Of a rank of this role, bound after its rank 0's; None where it has nobody to hand over to,
    or `listen` no ports for it."""
    ports, tp = parse_listen(config.listen).ports, config.placement.of(role).tp
    if role not in ("prefill", "decode"):
        return None
    if ports and len(ports) < 2 * tp:
        log.info("%d ports in listen, %d ranks: KV on sockets is rank 0's", len(ports), tp)
        return None
    worker = (config.name or role)[:NAME_LENGTH]
    name = f"{worker}.{rank}.{secrets.token_hex(4)}"
    return RankLinks(partial(ZmqLinks, name, config.listen, config.wire))
