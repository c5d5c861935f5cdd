"""Who may talk to whom, and how peers come and go: the same claims over every transport."""

from __future__ import annotations

import dataclasses

import pytest

from epd.errors import ProtocolError
from epd.wire.links import Delivery, PeerLost
from epd.wire.messages import (
    Heartbeat,
    Leaving,
    Members,
    Register,
    RegisterRefused,
    Welcome,
)
from tests.wire.conftest import CANCEL, Net, Node, answer_heartbeats, chunk, eventually, pair


def welcome_from(gateway: Node) -> Welcome:
    """As a gateway answers who registered at its control address."""
    name, incarnation = gateway.links.name, gateway.links.incarnation
    return Welcome(gateway=name, incarnation=incarnation, via=gateway.links.control)


# ---- who may talk


def test_an_unknown_senders_messages_are_dropped_and_counted(net: Net) -> None:
    a, b = net.node("a"), net.node("b")
    a.knows(b)
    assert a.links.send("b", CANCEL)
    assert a.links.send("b", chunk(b"1234"), b"1234")
    eventually(lambda: b.dropped("unknown_sender") == 2)
    assert b.nothing()


def test_mail_that_is_here_before_its_senders_introduction_waits_for_it(net: Net) -> None:
    """The membership reached a before b: what a sends at once is not lost, nor overtaken."""
    a, b = net.node("a"), net.node("b", grace_s=60, on_io=answer_heartbeats)
    a.knows(b)
    for _ in range(3):
        assert a.links.send("b", CANCEL)
    assert a.links.send("b", Heartbeat(sequence=5))
    eventually(lambda: b.links.counters()["received"] == 4)
    assert b.nothing()
    b.knows(a)
    assert [b.next().message for _ in range(3)] == [CANCEL] * 3
    assert a.next().message.sequence == 5


def test_mail_waits_for_an_introduction_only_so_long(net: Net) -> None:
    a, b = net.node("a"), net.node("b", grace_s=0.05)
    a.knows(b)
    assert a.links.send("b", CANCEL)
    eventually(lambda: b.dropped("unknown_sender") == 1)
    b.knows(a)
    assert a.links.send("b", Heartbeat(sequence=1))
    assert b.next().message.sequence == 1
    assert b.nothing()


def test_mail_for_another_incarnation_is_dropped_and_counted(net: Net) -> None:
    a, b = net.node("a"), net.node("b")
    b.knows(a)
    a.links.connect(dataclasses.replace(b.member, incarnation="0" * 32))
    assert a.links.send("b", CANCEL)
    eventually(lambda: b.dropped("stale") == 1)
    assert b.nothing()


def test_mail_from_another_incarnation_of_a_peer_is_a_strangers(net: Net) -> None:
    a, b = net.node("a"), net.node("b")
    a.knows(b)
    b.links.connect(dataclasses.replace(a.member, incarnation="0" * 32))
    assert a.links.send("b", CANCEL)
    eventually(lambda: b.dropped("unknown_sender") == 1)


def test_one_node_reached_at_two_addresses_stays_one_peer(net: Net) -> None:
    """It registers at one spelling of an address and learns another; both links live."""
    gateway, worker = net.node("gateway"), net.node("worker")
    gateway.knows(worker)
    address = gateway.links.control
    if net.kind == "tcp":
        address = address.replace("127.0.0.1", "localhost")
    worker.links.connect_unknown(address)
    register = Register(member=worker.member, fingerprint={}, via="")
    assert worker.links.send(address, register)
    assert gateway.next().message == register
    worker.knows(gateway)
    for sequence in range(20):
        assert worker.links.send("gateway", Heartbeat(sequence=sequence))
        assert worker.links.send(address, register)
    got = [gateway.next().message for _ in range(40)]
    assert got.count(register) == 20
    assert worker.nothing()


def test_a_forgotten_peer_is_a_stranger(net: Net) -> None:
    a, b = pair(net)
    b.links.forget("a")
    assert not b.links.send("a", CANCEL)
    assert a.links.send("b", CANCEL)
    eventually(lambda: b.dropped("unknown_sender") == 1)
    assert b.nothing()


def test_a_worker_registers_with_an_address_alone(net: Net) -> None:
    """Register from a stranger, Welcome to who asked; from then on both are peers."""
    gateway, worker = net.node("gateway"), net.node("worker")
    address = gateway.links.control
    worker.links.connect_unknown(address)
    assert worker.links.send(
        address, Register(member=worker.member, fingerprint={"dtype": "f"}, via=address)
    )
    asked = gateway.next()
    assert asked.sender == "worker" and asked.message.member == worker.member
    gateway.links.connect(asked.message.member)
    welcome = welcome_from(gateway)
    assert gateway.links.send("worker", welcome)
    assert gateway.links.send("worker", Members(members=(worker.member, gateway.member)))
    assert worker.next().message == welcome
    for member in worker.next().message.members:
        worker.links.connect(member)
    worker.links.forget(address)
    assert worker.links.send("gateway", CANCEL)
    assert gateway.next().message == CANCEL
    assert worker.links.send("gateway", chunk(b"1234"), b"1234")
    assert gateway.next().frame == b"1234"


def test_a_worker_registers_with_several_gateways(net: Net) -> None:
    """Each Welcome says which address it answers; its sender is a peer from then on."""
    worker = net.node("worker", on_io=answer_heartbeats)
    gateways = [net.node("gateway-0").knows(worker), net.node("gateway-1").knows(worker)]
    for gateway in gateways:
        worker.links.connect_unknown(gateway.links.control)
    for gateway in gateways:
        assert gateway.links.send("worker", welcome_from(gateway))
        assert gateway.links.send("worker", Heartbeat(sequence=1))
        assert gateway.next().message.sequence == 1, "answered over the link that registered"
        assert gateway.links.send("worker", Members(members=(gateway.member,)))
    for _ in range(4):
        came = worker.next()
        if isinstance(came.message, Members):
            worker.links.connect(came.message.members[0])
            assert worker.links.send(came.sender, CANCEL)
    for gateway in gateways:
        assert gateway.next().message == CANCEL


def test_a_heartbeat_right_after_the_welcome_is_answered(net: Net) -> None:
    """The worker's other thread has not even seen the Welcome."""
    gateway, worker = net.node("gateway"), net.node("worker", on_io=answer_heartbeats)
    worker.links.connect_unknown(gateway.links.control)
    gateway.knows(worker)
    welcome = welcome_from(gateway)
    assert gateway.links.send("worker", welcome)
    assert gateway.links.send("worker", Heartbeat(sequence=7))
    assert gateway.next().message.sequence == 7


def test_a_refusal_comes_back(net: Net) -> None:
    gateway, worker = net.node("gateway"), net.node("worker")
    worker.links.connect_unknown(gateway.links.control)
    gateway.knows(worker)
    assert gateway.links.send("worker", RegisterRefused(reason="dtype differs"))
    assert worker.next().message.reason == "dtype differs"


def test_a_welcome_that_nobody_waits_for_is_a_strangers(net: Net) -> None:
    a, b = net.node("a"), net.node("b")
    a.knows(b)
    assert a.links.send("b", welcome_from(a))
    eventually(lambda: b.dropped("unknown_sender") == 1)


def test_a_stranger_registers_nobody_but_itself(net: Net) -> None:
    a, b = net.node("a"), net.node("b")
    a.knows(b)
    other = dataclasses.replace(a.member, name="c")
    assert a.links.send("b", Register(member=other, fingerprint={}, via=""))
    eventually(lambda: b.dropped("identity") == 1)
    assert b.nothing()


# ---- coming and going


def test_a_killed_peer_is_reported_once(net: Net) -> None:
    member, kill = net.killable("victim")
    a = net.node("a")
    a.links.connect(member)
    assert a.links.send("victim", CANCEL)
    eventually(lambda: a.links.counters()["sent"] == 1)
    kill()
    lost = a.next()
    assert lost == PeerLost(name="victim", incarnation=member.incarnation, reason=lost.reason)
    a.links.connect(member)
    assert not a.links.send("victim", CANCEL)
    b = net.node("b").knows(a)
    a.knows(b)
    assert b.links.send("a", CANCEL)
    assert a.next().message == CANCEL
    assert a.nothing(), "one control and one bulk connection, one event"


def test_a_restarted_node_gets_none_of_its_predecessors_mail(net: Net) -> None:
    listen = net.fixed_listen()
    a = net.node("a")
    first = net.node("b", listen=listen)
    first.links.close()
    a.knows(first)
    for _ in range(3):
        assert a.links.send("b", CANCEL)
    second = net.node("b", listen=listen, start=False).knows(a)
    second.links.start()
    eventually(lambda: second.dropped("stale") == 3)
    a.knows(second)
    assert a.links.send("b", Heartbeat(sequence=9))
    assert second.next().message.sequence == 9
    assert second.nothing()


def test_a_new_incarnation_replaces_the_old_one(net: Net) -> None:
    listen = net.fixed_listen()
    a = net.node("a")
    first = net.node("b", listen=listen).knows(a)
    a.knows(first)
    assert a.links.send("b", CANCEL)
    first.next()
    first.links.close()
    assert isinstance(a.next(), PeerLost)
    second = net.node("b", listen=listen).knows(a)
    a.knows(second)
    assert a.links.send("b", Heartbeat(sequence=1))
    assert second.next().message.sequence == 1
    assert second.links.send("a", CANCEL)
    assert a.next() == Delivery(
        sender="b", incarnation=second.links.incarnation, message=CANCEL, frame=None
    )


def test_connecting_twice_changes_nothing(net: Net) -> None:
    a, b = pair(net)
    for _ in range(3):
        a.knows(b)
    assert a.links.send("b", CANCEL)
    assert b.next().message == CANCEL
    assert b.nothing()


def test_a_node_never_connects_to_itself(net: Net) -> None:
    a = net.node("a")
    a.knows(a)
    assert not a.links.send("a", CANCEL)


def test_closing_sends_what_is_queued(net: Net) -> None:
    a, b = pair(net)
    assert b.links.send("a", CANCEL)
    assert a.next().message == CANCEL  # b is connected, and so can lose the connection
    for sequence in range(50):
        assert a.links.send("b", Heartbeat(sequence=sequence))
    assert a.links.send("b", Leaving(reason="done"))
    a.links.close()
    assert [b.next().message.sequence for _ in range(50)] == list(range(50))
    assert b.next().message == Leaving(reason="done")
    assert isinstance(b.next(), PeerLost)


def test_after_closing_everything_is_quiet(net: Net) -> None:
    a, b = pair(net)
    a.links.close()
    a.links.close()
    a.links.connect(b.member)
    a.links.forget("b")
    assert not a.links.send("b", CANCEL)


def test_a_node_that_never_started_closes(net: Net) -> None:
    net.node("a", start=False).links.close()


def test_a_broken_io_handler_is_reported_and_peers_see_the_node_go(net: Net) -> None:
    def broken(delivery: Delivery) -> object | None:
        raise RuntimeError("a bug")

    a, b = pair(net, on_io=broken)
    assert a.links.send("b", CANCEL)
    own = b.next()
    assert isinstance(own, PeerLost) and own.name == "b"
    lost = a.next()
    assert isinstance(lost, PeerLost) and lost.name == "b"


@pytest.mark.parametrize("address", ["", "tcp://", "ipc://", "udp://1.2.3.4:5", "tcp://host", "x"])
def test_an_address_that_is_none_is_refused(net: Net, address: str) -> None:
    a, b = net.node("a"), net.node("b")
    with pytest.raises(ProtocolError, match="address"):
        a.links.connect(dataclasses.replace(b.member, control=address))
