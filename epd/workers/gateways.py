"""The gateways of one worker: where it looks for them, who has welcomed it, who needs it still.

A gateway has a name and may be met at several addresses. Each is a lease of its own: what is held
for a gateway that falls silent is given back, whatever the others say. Pure: time comes in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from epd.types import Member

REGISTER_EVERY_S = 0.5


@dataclass(slots=True)
class Gateway:
    """One that has welcomed this worker. `released`: it needs a draining worker no more."""

    name: str
    incarnation: str
    heard_at: float
    vias: set[str] = field(default_factory=set)
    table: tuple[Member, ...] = ()
    released: bool = False


@dataclass(frozen=True, slots=True)
class Welcomed:
    """`lost` was an earlier incarnation. `spare`: an address of one that is known already."""

    gateway: Gateway
    lost: Gateway | None = None
    spare: bool = False


class Gateways:
    """Those that live, by name."""

    def __init__(self) -> None:
        self.draining = False
        self.times_lost: Counter[str] = Counter()
        self._known: dict[str, Gateway] = {}
        self._asked: set[str] = set()
        self._asked_at = float("-inf")

    @property
    def known(self) -> list[Gateway]:
        """All of them, in order of their welcomes."""
        return list(self._known.values())

    def get(self, name: str, incarnation: str | None = None) -> Gateway | None:
        """The one of this name, if it is (still) this incarnation."""
        found = self._known.get(name)
        if found is not None and incarnation in (None, found.incarnation):
            return found
        return None

    def welcome(self, name: str, incarnation: str, via: str, now: float) -> Welcomed | None:
        """One answered at an address. None: nothing follows, for another lives under its name."""
        old = self._known.get(name)
        if old is not None and old.incarnation == incarnation:
            spare = via not in old.vias
            old.vias.add(via)
            return Welcomed(old, spare=spare)
        if old is not None and via not in old.vias:
            return None
        gateway = Gateway(name, incarnation, now, {via})
        if old is not None:
            self._forget(old)
        self._known[name] = gateway
        return Welcomed(gateway, lost=old)

    def lost(self, name: str, incarnation: str) -> Gateway | None:
        """It died or left; None where that is no news."""
        gateway = self.get(name, incarnation)
        if gateway is not None:
            self._forget(gateway)
        return gateway

    def _forget(self, gateway: Gateway) -> None:
        del self._known[gateway.name]
        self.times_lost[gateway.name] += 1

    def silent(self, heard: dict[str, float], now: float, most_s: float) -> list[Gateway]:
        """Whose lease has ended: nothing was heard of them for `most_s`."""
        return [
            gateway
            for gateway in self._known.values()
            if now - max(gateway.heard_at, heard.get(gateway.name, 0.0)) > most_s
        ]

    # ---- where they are

    def due(self, now: float) -> bool:
        """It is time to register again where that is needed. True once per interval."""
        if now - self._asked_at < REGISTER_EVERY_S:
            return False
        self._asked_at = now
        return True

    def to_ask(self, addresses: Sequence[str]) -> list[str]:
        """Addresses to register at: those from which nobody has answered."""
        answered = {via for gateway in self._known.values() for via in gateway.vias}
        asked = [address for address in addresses if address not in answered]
        self._asked.update(asked)
        return asked

    def vanished(self, addresses: Sequence[str]) -> list[str]:
        """Addresses that were asked in vain and are none any more. Who is known has a lease."""
        gone = self._asked.difference(addresses)
        self._asked -= gone
        answered = {via for gateway in self._known.values() for via in gateway.vias}
        return sorted(gone - answered)

    # ---- draining

    def to_tell(self) -> list[Gateway]:
        """While this worker drains: those that have not released it."""
        return [g for g in self._known.values() if self.draining and not g.released]

    @property
    def drained(self) -> bool:
        """Nobody needs this worker any more."""
        return self.draining and not self.to_tell()
