"""What every worker has whatever its stage: its seat in the cluster.

Registers with the gateways, follows the membership table, turns silence and closed connections
into "peer lost" and "gateway lost", and answers heartbeats. Knows no stage.

A peer that is lost here may live all the same: as long as a table names it, it is met again, and
told that what it shared with this worker is gone.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from epd.config import WireConfig
from epd.errors import ConfigError, InternalError
from epd.types import Member
from epd.wire.links import Delivery, Links, PeerLost
from epd.wire.messages import (
    Forgotten,
    Heartbeat,
    HeartbeatReply,
    Holding,
    Leaving,
    Members,
    Register,
    RegisterRefused,
    Welcome,
)

log = logging.getLogger(__name__)

REGISTER_EVERY_S = 0.5
HOLDING_EVERY_S = 2.0

Handler = Callable[[str, Any, memoryview | None], None]
"""What a stage does with one kind of message: (sender, message, frame)."""


class Core(Protocol):
    """The stage behind a station."""

    def receive(self, delivery: Delivery) -> None:
        """A message of the stage arrived."""

    def peer_lost(self, name: str) -> None:
        """A worker died or left, or one of the two took the other for dead."""

    def gateway_lost(self, name: str) -> None:
        """A gateway died or left: everything held for it is to be given back."""

    def holding(self, gateway: str) -> Holding:
        """All that is held for a gateway."""

    def local(self, event: object) -> None:
        """An event from a thread of the stage's own."""

    @property
    def has_work(self) -> bool:
        """A forward is due."""

    @property
    def stuck(self) -> bool:
        """A peer takes no bulk now and will not say when it does: step() is to be tried soon."""

    def step(self) -> None:
        """One unit of work."""

    def gauges(self) -> dict[str, int]:
        """What the stage holds."""

    def close(self) -> None:
        """Free threads and shared memory."""


@dataclass(slots=True)
class _Gateway:
    incarnation: str
    via: str
    heard_at: float
    table: tuple[Member, ...] = ()


class Pulse:
    """Shared between the step thread, which beats, and the I/O thread, which answers."""

    def __init__(self) -> None:
        self.step_began: float | None = None
        self.gauges: dict[str, int] = {}
        self.heard: dict[str, float] = {}

    def answer(self, delivery: Delivery) -> object | None:
        """Runs on the I/O thread: heartbeats are answered however long a step takes."""
        if not isinstance(delivery.message, Heartbeat):
            return None
        now = time.monotonic()
        self.heard[delivery.sender] = now
        began = self.step_began
        return HeartbeatReply(
            sequence=delivery.message.sequence,
            step_age_ms=0 if began is None else int((now - began) * 1000),
            gauges=self.gauges,
        )


class Station:
    """The seat of one worker. `wants` says which members it exchanges messages with."""

    def __init__(
        self,
        links: Links,
        config: WireConfig,
        gateways: tuple[str, ...],
        register: Register,
        pulse: Pulse,
        wants: Callable[[Member], bool],
    ) -> None:
        self.links = links
        self.members: dict[str, Member] = {}
        self._config = config
        self._addresses = gateways
        self._register = register
        self._pulse = pulse
        self._wants = wants
        self._gateways: dict[str, _Gateway] = {}
        self._registered_at = float("-inf")
        self._core: Core | None = None
        self._unreachable: set[str] = set()
        self._doubted: dict[str, Member] = {}  # lost here, named by a table
        self._times_lost: Counter[str] = Counter()
        self._told_at = 0.0

    def attach(self, core: Core) -> None:
        """The stage that gets what is not membership."""
        self._core = core

    @property
    def core(self) -> Core:
        assert self._core is not None
        return self._core

    def handle(self, event: object) -> None:
        """A delivery or a lost peer from the links, or an event of the stage's own."""
        if isinstance(event, PeerLost):
            self._lost(event.name, event.incarnation, event.reason)
        elif isinstance(event, Delivery):
            self._deliver(event, event.message)
        else:
            self.core.local(event)

    def settle(self) -> None:
        """After every turn: those that could not be sent to are lost."""
        while self._unreachable:
            self._give_up(self._unreachable.pop())

    def dispatch(self, handlers: dict[type[Any], Handler], delivery: Delivery) -> None:
        """Call the stage's handler for a message; one that has none is dropped and logged."""
        handler = handlers.get(type(delivery.message))
        if handler is None:
            log.warning("unexpected message=%s from=%s", delivery.message, delivery.sender)
        else:
            handler(delivery.sender, delivery.message, delivery.frame)

    def send(self, to: str, message: object) -> None:
        """Send a control message; a peer that cannot take it is treated as dead."""
        self._meet_again(to)
        if not self.links.send(to, message):
            self._unreachable.add(to)

    def same_host(self, name: str) -> bool:
        """True for a peer that can read this worker's shared memory."""
        member = self.members.get(name)
        return member is not None and member.host == self._register.member.host

    def _give_up(self, name: str) -> None:
        member, gateway = self.members.get(name), self._gateways.get(name)
        known = member or gateway
        if known is not None:
            self._lost(name, known.incarnation, "cannot be reached")
        else:
            self.core.peer_lost(name)

    def _deliver(self, delivery: Delivery, message: Any) -> None:
        if isinstance(message, Welcome):
            self._welcome(message)
        elif isinstance(message, RegisterRefused):
            raise ConfigError(f"refused by {delivery.sender}: {message.reason}")
        elif isinstance(message, Members):
            self._follow(delivery.sender, message.members)
        elif isinstance(message, Leaving):
            self._lost(delivery.sender, delivery.incarnation, message.reason, left=True)
        elif isinstance(message, Forgotten):
            self._forgotten(delivery)
        else:
            self.core.receive(delivery)

    def _welcome(self, message: Welcome) -> None:
        if message.via not in self._addresses:
            return
        known = self._gateways.get(message.gateway)
        if known is not None and known.incarnation != message.incarnation:
            self._lost(message.gateway, known.incarnation, "restarted")
        if known is None or known.incarnation != message.incarnation:
            gateway = _Gateway(message.incarnation, message.via, time.monotonic())
            self._gateways[message.gateway] = gateway
        self.links.connect(
            Member(
                name=message.gateway,
                incarnation=message.incarnation,
                stages=(),
                control=message.via,
                bulk="",
                host="",
                pool="",
            )
        )

    def _follow(self, sender: str, members: tuple[Member, ...]) -> None:
        """Adopt a gateway's table: a member is gone when no gateway knows it any more."""
        gateway = self._gateways.get(sender)
        if gateway is None:
            return
        gateway.table = members
        tables = [other.table for other in self._gateways.values() if other is not gateway]
        wanted = {m.name: m for table in [*tables, members] for m in table if self._wants(m)}
        for name in list(self._doubted):
            if self._doubted[name] == wanted.get(name):
                self._meet_again(name)
            else:
                del self._doubted[name]
        for name, member in wanted.items():
            old = self.members.get(name)
            if old is not None and old.incarnation != member.incarnation:
                self._lost(name, old.incarnation, "restarted")
            self.members[name] = member
            self.links.connect(member)
        for name in set(self.members) - set(wanted):
            self._lost(name, self.members[name].incarnation, "left the cluster")

    def _lost(self, name: str, incarnation: str, reason: str, *, left: bool = False) -> None:
        if name == self.links.name:
            raise InternalError(reason)
        gateway, member = self._gateways.get(name), self.members.get(name)
        if gateway is not None and gateway.incarnation == incarnation:
            del self._gateways[name]
            self._times_lost[gateway.via] += 1
            self.links.forget(name)
            log.warning("gateway lost name=%s reason=%s", name, reason)
            self.core.gateway_lost(name)
        elif member is not None and member.incarnation == incarnation:
            del self.members[name]
            self.links.forget(name)
            if not left and any(member in gateway.table for gateway in self._gateways.values()):
                self._doubted[name] = member
            log.warning("peer lost name=%s reason=%s", name, reason)
            self.core.peer_lost(name)

    def _meet_again(self, name: str) -> None:
        """Connect to a peer that was lost here; where it lives, it lets go as this worker did."""
        member = self._doubted.pop(name, None)
        if member is not None:
            self.members[name] = member
            self.links.connect(member)
            self.links.send(name, Forgotten(reason="took you for dead"))

    def _forgotten(self, delivery: Delivery) -> None:
        member = self.members.get(delivery.sender)
        if member is not None and member.incarnation == delivery.incarnation:
            log.warning("forgotten by=%s reason=%s", delivery.sender, delivery.message.reason)
            self.core.peer_lost(delivery.sender)

    def tick(self) -> None:
        """Called about four times a second: end silent leases, register where not welcome yet."""
        now = time.monotonic()
        for name in list(self._doubted):
            self._meet_again(name)
        self._end_silent(now)
        self._register_again(now)
        if now - self._told_at >= HOLDING_EVERY_S:
            self._told_at = now
            self._tell_holding()

    def _end_silent(self, now: float) -> None:
        for name, gateway in list(self._gateways.items()):
            heard = max(gateway.heard_at, self._pulse.heard.get(name, 0.0))
            if now - heard > self._config.dead_after_s:
                self._lost(name, gateway.incarnation, "no heartbeat")

    def _register_again(self, now: float) -> None:
        missing = len(self._gateways) < len(self._addresses)
        if missing and now - self._registered_at >= REGISTER_EVERY_S:
            self._registered_at = now
            for address in self._addresses:
                self.links.connect_unknown(address)
                lost = self._times_lost[address]
                self.links.send(address, replace(self._register, via=address, lost=lost))

    def _tell_holding(self) -> None:
        for name in self._gateways:
            holding = self.core.holding(name)
            if holding.requests or holding.items:
                self.send(name, holding)

    @property
    def welcome(self) -> bool:
        """Every gateway knows this worker."""
        return len(self._gateways) == len(self._addresses)

    def leave(self) -> None:
        """Tell everybody, so that nobody waits for a timeout."""
        for name in [*self._gateways, *self.members]:
            self.links.send(name, Leaving(reason="stopping"))
