"""Peers that cannot be reached although nobody says so: a cut link, a host that never answers."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from epd.wire.links import Delivery, PeerLost
from tests.hosts import Hosts, why_not
from tests.wire.conftest import CANCEL, Net, Node, member_of

DEAD_AFTER_S = 1.0
NOTICED_S = 10.0  # with three probes, and the kernel's timers are coarse


@pytest.fixture
def tcp_net(short_folder: Path) -> Iterator[Net]:
    net = Net("tcp", short_folder)
    yield net
    net.close()


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    if reason := why_not():
        pytest.skip(reason)
    found = Hosts("x", "y")
    yield found
    found.close()


def node_on(hosts: Hosts, net: Net, name: str) -> Node:
    """A node of the same name as its host."""
    listen = f"tcp://{hosts.address(name)}"
    with hosts.inside(name):
        return net.node(name, listen=listen, insecure=True, dead_after_s=DEAD_AFTER_S)


def test_a_host_that_takes_the_connection_and_says_nothing_is_lost(tcp_net: Net) -> None:
    """What was sent to it would wait for ever."""
    node = tcp_net.node("a", dead_after_s=DEAD_AFTER_S)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"tcp://127.0.0.1:{mute.getsockname()[1]}"
        node.links.connect(member_of("mute", "1", address, address))
        assert node.links.send("mute", CANCEL)
        event = node.next()
    assert isinstance(event, PeerLost)
    assert (event.name, event.reason) == ("mute", "cannot be reached")
    assert not node.links.send("mute", CANCEL)


def test_a_peer_that_nobody_writes_to_may_take_its_time(tcp_net: Net) -> None:
    node, quick = tcp_net.node("a", dead_after_s=0.05), tcp_net.node("b")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"tcp://127.0.0.1:{mute.getsockname()[1]}"
        node.links.connect(member_of("mute", "1", address, address))
        node.knows(quick)
        quick.knows(node)
        for _ in range(3):
            quick.links.send("a", CANCEL)
            assert isinstance(node.next(), Delivery)
        assert node.nothing()


def test_a_registration_waits_for_a_gateway_as_long_as_it_takes(tcp_net: Net) -> None:
    node = tcp_net.node("a", dead_after_s=0.05)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"tcp://127.0.0.1:{mute.getsockname()[1]}"
        node.links.connect_unknown(address)
        assert node.links.send(address, CANCEL)
        assert not node.inbox.take(wait=True, timeout=0.5)
        assert node.links.send(address, CANCEL)


def test_a_link_that_is_cut_with_something_on_its_way_is_lost_soon(
    tcp_net: Net, hosts: Hosts
) -> None:
    """Not when the kernel gives up, a quarter of an hour later; and healed it works again."""
    x, y = node_on(hosts, tcp_net, "x"), node_on(hosts, tcp_net, "y")
    x.knows(y)
    y.knows(x)
    assert x.links.send("y", CANCEL)
    assert y.next().message == CANCEL
    hosts.cut("x", "y")
    began = time.monotonic()
    assert x.links.send("y", CANCEL)
    event = x.next()
    assert isinstance(event, PeerLost) and event.name == "y"
    assert time.monotonic() - began < NOTICED_S
    assert isinstance(y.next(), PeerLost)  # nothing of y's was on its way: keepalive told it
    hosts.heal("x", "y")
    for node, other in ((x, y), (y, x)):
        node.links.forget(other.links.name)
        node.knows(other)
    assert x.links.send("y", CANCEL)
    assert y.next().message == CANCEL
