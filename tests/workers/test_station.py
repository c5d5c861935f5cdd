"""A worker's seat: peers that are lost by mistake are met again, and both sides let go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from epd.config import WireConfig
from epd.types import Member, Stage
from epd.wire import messages as m
from epd.wire.links import Buffer, Delivery, PeerLost
from epd.workers.lookup import Lookup
from epd.workers.pulse import Pulse
from epd.workers.station import Station


def member(name: str, incarnation: str = "1") -> Member:
    return Member(
        name=name,
        incarnation=incarnation,
        stages=(Stage.PREFILL,),
        control=f"ipc:///{name}.c",
        bulk=f"ipc:///{name}.b",
        host="h",
        pool="p",
    )


ME, PEER = member("me"), member("peer")
FORGOTTEN = m.Forgotten(reason="took you for dead")


class Links:
    """Known names can be sent to."""

    name, incarnation, control, bulk = "me", "1", "", ""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.sent: list[tuple[str, Any]] = []

    def connect(self, member: Member) -> None:
        self.known.add(member.name)

    def connect_unknown(self, address: str) -> None:
        self.known.add(address)

    def forget(self, name: str) -> None:
        self.known.discard(name)

    def send(self, to: str, message: object, frame: Buffer | None = None) -> bool:
        self.sent.append((to, message))
        return to in self.known


class Core:
    """Writes down who was lost; `parting` is what it then tells the lost one."""

    def __init__(self, station: Station) -> None:
        self.station = station
        self.lost: list[str] = []
        self.received: list[Any] = []
        self.parting: object | None = None

    def peer_lost(self, name: str) -> None:
        self.lost.append(name)
        if self.parting is not None:
            self.station.send(name, self.parting)

    def gateway_lost(self, name: str) -> None:
        self.lost.append(name)

    def receive(self, delivery: Delivery) -> None:
        self.received.append(delivery.message)

    def holding(self, gateway: str) -> m.Holding:
        return m.Holding(requests=(), items=())


class Seat:
    """Welcomed by one gateway whose table names the peer."""

    def __init__(self) -> None:
        self.links = Links()
        register = m.Register(member=ME, fingerprint={}, via="")
        self.station = Station(
            self.links,  # type: ignore[arg-type]
            WireConfig(),
            Lookup(("ipc:///gateway.c",), 1.0),
            register,
            Pulse(),
            wants=lambda other: other.name != "me",
        )
        self.core = Core(self.station)
        self.station.attach(self.core)  # type: ignore[arg-type]
        self.says("g", m.Welcome(gateway="g", incarnation="1", via="ipc:///gateway.c"))
        self.table(PEER)
        self.links.sent.clear()

    def says(self, sender: str, message: object, incarnation: str = "1") -> None:
        self.station.handle(
            Delivery(sender=sender, incarnation=incarnation, message=message, frame=None)
        )

    def table(self, *members: Member) -> None:
        self.says("g", m.Members(members=(ME, *members)))

    def lose(self) -> None:
        self.station.handle(PeerLost(name="peer", incarnation="1", reason="connection reset"))

    def told(self) -> list[Any]:
        return [message for to, message in self.links.sent if to == "peer"]


def registered(seat: Seat) -> list[Any]:
    return [message for to, message in seat.links.sent if isinstance(message, m.Register)]


def test_a_draining_worker_says_so_once_to_those_it_knows_and_is_released() -> None:
    seat = Seat()
    seat.station.drain()
    seat.station.drain()
    ((to, register),) = seat.links.sent
    assert (to, register.draining, register.lost) == ("g", True, {})
    assert not seat.station.drained
    seat.says("g", m.Released(reason="done"))
    assert seat.station.drained


def test_a_release_that_nobody_asked_for_or_from_a_former_gateway_drains_nothing() -> None:
    seat = Seat()
    seat.says("g", m.Released(reason="done"))
    seat.station.drain()
    seat.says("g", m.Released(reason="done"), incarnation="0")
    seat.says("stranger", m.Released(reason="done"))
    assert not seat.station.drained


def test_an_operators_order_is_kept_for_the_process() -> None:
    seat = Seat()
    seat.says("g", m.Drain(deadline_ms=1500))
    assert seat.station.drain_asked_ms == 1500
    assert registered(seat) == []


def test_a_gateway_that_was_taken_for_dead_hears_how_often_when_it_is_met_again() -> None:
    """By its name, whichever of its addresses is tried: what it had here is gone."""
    seat = Seat()
    seat.station.handle(PeerLost(name="g", incarnation="1", reason="connection reset"))
    assert seat.core.lost == ["g"] and not seat.station.welcome
    seat.station.tick()
    assert registered(seat)[-1].lost == {"g": 1}


def test_a_peer_that_was_lost_but_is_still_named_is_met_again() -> None:
    """It hears first of all that what it shares with this worker is gone."""
    seat = Seat()
    seat.lose()
    assert seat.core.lost == ["peer"] and "peer" not in seat.links.known
    seat.station.tick()
    assert seat.told() == [FORGOTTEN]
    assert seat.station.members["peer"] == PEER and "peer" in seat.links.known
    seat.station.tick()
    assert seat.told() == [FORGOTTEN]


def test_whoever_has_something_to_say_does_not_wait_for_the_clock() -> None:
    """The end of a hand-off, say."""
    seat = Seat()
    seat.core.parting = "parting"
    seat.lose()
    assert seat.told() == [FORGOTTEN, "parting"]


def test_a_new_table_that_names_it_is_reason_enough() -> None:
    seat = Seat()
    seat.lose()
    seat.table(PEER, member("another"))
    assert seat.told() == [FORGOTTEN]
    assert set(seat.station.members) == {"peer", "another"}


def test_a_peer_that_no_table_names_any_more_stays_lost() -> None:
    """Its gateway saw it die, too."""
    seat = Seat()
    seat.lose()
    seat.table()
    seat.station.tick()
    assert seat.told() == [] and not seat.station.members


def test_a_peer_that_was_restarted_is_no_old_acquaintance() -> None:
    """It knows nothing of what was shared with its predecessor."""
    seat = Seat()
    seat.lose()
    seat.table(replace(PEER, incarnation="2"))
    assert seat.told() == []
    assert seat.station.members["peer"].incarnation == "2"


def test_a_peer_that_has_left_is_not_met_again() -> None:
    """It said so itself."""
    seat = Seat()
    seat.says("peer", m.Leaving(reason="stopping"))
    seat.station.tick()
    assert seat.told() == []


def test_who_was_taken_for_dead_lets_go_and_keeps_the_link() -> None:
    """And does not say it back, which would never end."""
    seat = Seat()
    seat.says("peer", FORGOTTEN)
    assert seat.core.lost == ["peer"] and seat.core.received == []
    assert seat.station.members["peer"] == PEER
    seat.station.tick()
    assert seat.told() == []


def test_a_word_from_a_former_incarnation_ends_nothing() -> None:
    seat = Seat()
    seat.says("peer", FORGOTTEN, incarnation="0")
    assert seat.core.lost == []
