"""Workers as they register, answer heartbeats, drain, leave and die, seen from a gateway."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from epd.cluster import Membership, Ownership
from epd.cluster.membership import Rejected
from epd.config.sections import WireConfig
from epd.errors import InternalError, NotFound
from epd.observe import Metrics
from epd.types import Member
from epd.wire.links import Delivery
from epd.wire.messages import (
    Drain,
    Heartbeat,
    Leaving,
    Members,
    Register,
    RegisterRefused,
    Released,
    Welcome,
)
from epd.wire.zmq_links import ZmqLinks
from epd.workers.awake import Awake
from epd.workers.overview import Overview

log = logging.getLogger(__name__)


class Roster:
    """Tells membership, ownership and everyone who looks on. `do`: carries instructions out."""

    def __init__(
        self,
        membership: Membership,
        ownership: Ownership,
        links: ZmqLinks,
        metrics: Metrics,
        wire: WireConfig,
        do: Callable[[list[Any]], None],
    ) -> None:
        self.overview = Overview(membership)
        self._membership = membership
        self._ownership = ownership
        self._links = links
        self._metrics = metrics
        self._wire = wire
        self._do = do
        self._awake = Awake(wire.dead_after_s / 2)
        self._heard: dict[str, float] = {}
        self._beats = 0

    def on_register(self, delivery: Delivery) -> None:
        """A worker wants to join, or says that it is still there."""
        message: Register = delivery.message
        member = message.member
        if member.name != delivery.sender or member.incarnation != delivery.incarnation:
            log.warning("a register that is not the sender's own from=%s", delivery.sender)
            return
        lost = message.lost.get(self._links.name, 0)
        joined = self._membership.join(member, message.fingerprint, lost)
        if isinstance(joined, Rejected):
            self._refuse(member, joined.reason)
            return
        self._links.connect(member)
        if joined.replaced is not None:
            self._gone(joined.replaced, "restarted")
        self._welcome(member, message.via)
        drains = message.draining and self._membership.drain(member.name)
        if drains:
            log.info("drains worker=%s", member.name)
        if drains or not message.draining:
            self._publish()
            self._do(self._ownership.room())
        self._release()

    def _welcome(self, member: Member, via: str) -> None:
        gateway = self._links
        welcome = Welcome(gateway=gateway.name, incarnation=gateway.incarnation, via=via)
        gateway.send(member.name, welcome)
        now = time.monotonic()
        if member.name not in self._heard:
            log.info("joined worker=%s stages=%s", member.name, ",".join(member.stages))
            self.overview.joined(member, now)
        self._heard[member.name] = self._awake.read(now)

    def _refuse(self, member: Member, reason: str) -> None:
        """Say why, unless its name is a member's, whose link it must not take."""
        log.error("refused worker=%s reason=%s", member.name, reason)
        if self._membership.get(member.name) is None:
            self._links.connect(member)
            self._links.send(member.name, RegisterRefused(reason=reason))

    def _release(self) -> None:
        """Draining workers that nothing needs any more may leave."""
        for member in self._membership.draining:
            if not self._ownership.needs(member):
                self._links.send(member.name, Released(reason="no request needs you"))

    def on_heartbeat(self, delivery: Delivery) -> None:
        """A worker answers, and says how it is."""
        self._heard[delivery.sender] = self._awake.read(time.monotonic())
        member = self._membership.get(delivery.sender)
        if member is not None:
            gauges = {**delivery.message.gauges, "step_age_ms": delivery.message.step_age_ms}
            self.overview.reported(member, gauges)
            self._metrics.worker(member.name, "+".join(member.stages), gauges)
            self._ownership.reported(member.name, delivery.message.gauges)

    def on_leaving(self, delivery: Delivery) -> None:
        """A worker goes of itself."""
        self.lost(delivery.sender, delivery.incarnation, delivery.message.reason, left=True)

    def lost(self, name: str, incarnation: str, reason: str, *, left: bool = False) -> None:
        """Harmless where another incarnation has the name. InternalError: it is ourselves."""
        if name == self._links.name:
            raise InternalError(reason)
        member = self._membership.leave(name, incarnation)
        if member is not None:
            self._links.forget(name)
            self._gone(member, reason, left=left)

    def unreachable(self, name: str) -> None:
        """Nothing can be sent to it."""
        member = self._membership.get(name)
        if member is not None:
            later = asyncio.get_running_loop()
            later.call_soon(self.lost, name, member.incarnation, "cannot be reached")

    def _gone(self, member: Member, reason: str, *, left: bool = False) -> None:
        log.warning("lost worker=%s reason=%s", member.name, reason)
        self._heard.pop(member.name, None)
        self.overview.gone(member)
        self._metrics.worker_gone(member.name)
        self._publish()
        self._do(self._ownership.worker_lost(member.name, left=left))

    def _publish(self) -> None:
        table = Members(members=self._membership.members)
        for member in table.members:
            self._links.send(member.name, table)

    def drain(self, name: str, seconds: float) -> None:
        """Tell a worker to finish and to leave. NotFound: there is none of that name."""
        if self._membership.get(name) is None:
            raise NotFound(f"no worker is called {name[:200]!r}")
        self._links.send(name, Drain(deadline_ms=int(1000 * seconds)))

    async def beat(self) -> None:
        """Heartbeats, for ever: they renew the leases of all requests."""
        while True:
            self._beats += 1
            now = self._awake.read(time.monotonic())
            for member in self._membership.members:
                if now - self._heard.get(member.name, now) > self._wire.dead_after_s:
                    self.lost(member.name, member.incarnation, "no heartbeat")
                else:
                    self._links.send(member.name, Heartbeat(sequence=self._beats))
            self._release()
            await asyncio.sleep(self._wire.heartbeat_s)

    def leave(self) -> None:
        """Tell the workers that the leases end here."""
        for member in self._membership.members:
            self._links.send(member.name, Leaving(reason="the gateway stops"))
