"""What every worker has whatever its stage: its seat in the cluster.

Registers with the gateways, follows the membership table, turns silence and closed connections
into "peer lost" and "gateway lost", and answers heartbeats. Knows no stage.

A peer that is lost here may live all the same: as long as a table names it, it is met again, and
told that what it shared with this worker is gone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from epd.config import WireConfig
from epd.errors import ConfigError, InternalError
from epd.transfer.ways import FRAMES, Route, route
from epd.types import Member
from epd.wire.links import Delivery, Links, PeerLost
from epd.wire.messages import (
    Drain,
    Forget,
    Forgotten,
    Leaving,
    Members,
    Recall,
    Recalled,
    Register,
    RegisterRefused,
    Released,
    Welcome,
)
from epd.workers.core import Core
from epd.workers.gateways import Gateway, Gateways
from epd.workers.pulse import Pulse
from epd.workers.relay import Relay

log = logging.getLogger(__name__)

HOLDING_EVERY_S = 2.0

Handler = Callable[[str, Any, memoryview | None], None]
"""What a stage does with one kind of message: (sender, message, frame)."""


class Addresses(Protocol):
    """Where to look for gateways: a Lookup."""

    @property
    def current(self) -> tuple[str, ...]:
        """Those known now."""


class Station:
    """The seat of one worker. `wants` says which members it exchanges messages with."""

    def __init__(
        self,
        links: Links,
        config: WireConfig,
        addresses: Addresses,
        register: Register,
        pulse: Pulse,
        wants: Callable[[Member], bool],
    ) -> None:
        self.links = links
        self.members: dict[str, Member] = {}
        self._config = config
        self._addresses = addresses
        self._register = register
        self._pulse = pulse
        self._wants = wants
        self._gateways = Gateways()
        self._relay = Relay(links, self._gateways)
        self._core: Core | None = None
        self._unreachable: set[str] = set()
        self._doubted: dict[str, Member] = {}  # lost here, named by a table
        self._told_at = 0.0
        self.drain_asked_ms: int | None = None

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

    def route(self, name: str) -> Route:
        """How tensors go to a peer."""
        member = self.members.get(name)
        return FRAMES if member is None else route(self._register.member, member)

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
            self._follow(delivery, message.members)
        elif isinstance(message, Leaving):
            self._lost(delivery.sender, delivery.incarnation, message.reason, left=True)
        elif isinstance(message, Forgotten):
            self._forgotten(delivery)
        elif isinstance(message, Drain):
            self.drain_asked_ms = message.deadline_ms
        elif isinstance(message, Released):
            self._released(delivery)
        elif isinstance(message, Recall | Forget | Recalled):
            self._relay.pass_on(delivery)
        else:
            self.core.receive(delivery)

    def _welcome(self, message: Welcome) -> None:
        if message.via not in self._addresses.current:
            return
        name, incarnation, via = message.gateway, message.incarnation, message.via
        welcomed = self._gateways.welcome(name, incarnation, via, time.monotonic())
        if welcomed is None:
            log.error("two gateways are called name=%s, the second at address=%s", name, via)
            return
        if welcomed.spare:
            self.links.forget(via)
            return
        if welcomed.lost is not None:
            self._end_lease(welcomed.lost, "restarted")
        self.links.connect(
            Member(
                name=name,
                incarnation=incarnation,
                stages=(),
                control=via,
                bulk="",
                host="",
                pool="",
            )
        )

    def _follow(self, delivery: Delivery, members: tuple[Member, ...]) -> None:
        """Adopt a gateway's table: a member is gone when no gateway knows it any more."""
        gateway = self._gateways.get(delivery.sender, delivery.incarnation)
        if gateway is None:
            return
        gateway.table = members
        tables = [other.table for other in self._gateways.known if other is not gateway]
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
        gateway, member = self._gateways.lost(name, incarnation), self.members.get(name)
        if gateway is not None:
            self._end_lease(gateway, reason)
        elif member is not None and member.incarnation == incarnation:
            del self.members[name]
            self.links.forget(name)
            if not left and any(member in gateway.table for gateway in self._gateways.known):
                self._doubted[name] = member
            log.warning("peer lost name=%s reason=%s", name, reason)
            self.core.peer_lost(name)

    def _end_lease(self, gateway: Gateway, reason: str) -> None:
        self.links.forget(gateway.name)
        log.warning("gateway lost name=%s reason=%s", gateway.name, reason)
        self.core.gateway_lost(gateway.name)

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

    def drain(self) -> None:
        """Every gateway is told to send nothing new; those met from now on hear it at once."""
        if not self._gateways.draining:
            self._gateways.draining = True
            for gateway in self._gateways.to_tell():
                self._register_at(gateway.name, via=min(gateway.vias))

    @property
    def drained(self) -> bool:
        """No gateway needs this worker any more."""
        return self._gateways.drained

    def _released(self, delivery: Delivery) -> None:
        gateway = self._gateways.get(delivery.sender, delivery.incarnation)
        if gateway is not None and self._gateways.draining:
            gateway.released = True

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
        silent = self._gateways.silent(self._pulse.heard, now, self._config.dead_after_s)
        for gateway in silent:
            self._lost(gateway.name, gateway.incarnation, "no heartbeat")

    def _register_again(self, now: float) -> None:
        if not self._gateways.due(now):
            return
        addresses = self._addresses.current
        for address in self._gateways.vanished(addresses):
            self.links.forget(address)
        for address in self._gateways.to_ask(addresses):
            self.links.connect_unknown(address)
            self._register_at(address, via=address)
        for gateway in self._gateways.to_tell():
            self._register_at(gateway.name, via=min(gateway.vias))

    def _register_at(self, to: str, *, via: str) -> None:
        register = replace(
            self._register,
            via=via,
            lost=dict(self._gateways.times_lost),
            draining=self._gateways.draining,
        )
        self.links.send(to, register)

    def _tell_holding(self) -> None:
        for gateway in self._gateways.known:
            holding = self.core.holding(gateway.name)
            if holding.requests or holding.items:
                self.send(gateway.name, holding)

    @property
    def welcome(self) -> bool:
        """Some gateway knows this worker."""
        return bool(self._gateways.known)

    def leave(self) -> None:
        """Tell everybody, so that nobody waits for a timeout."""
        for name in [*(gateway.name for gateway in self._gateways.known), *self.members]:
            self.links.send(name, Leaving(reason="stopping"))
