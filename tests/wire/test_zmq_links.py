"""What only real sockets can get wrong."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import pytest

from epd.config.sections import WireConfig
from epd.errors import ConfigError
from epd.wire.inbox import Inbox
from epd.wire.zmq_links import ZmqLinks
from tests.wire.conftest import CANCEL, Net, eventually, free_port_pair


def open_files() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_closing_leaves_no_socket_file_and_no_descriptor(short_folder: Path) -> None:
    net = Net("ipc", short_folder)
    before = open_files()
    a, b = net.node("a"), net.node("b")
    a.knows(b)
    b.knows(a)
    assert sorted(path.name for path in short_folder.iterdir()) == ["a.b", "a.c", "b.b", "b.c"]
    assert a.links.send("b", CANCEL)
    b.next()
    a.links.close()
    b.links.close()
    assert not list(short_folder.iterdir())
    eventually(lambda: open_files() <= before)
    net.close()


def test_a_frame_over_the_limit_cuts_the_connection_and_the_loop_lives(zmq_net: Net) -> None:
    b = zmq_net.node("b", max_message_bytes=2000)
    a = zmq_net.node("a")
    a.knows(b)
    b.knows(a)
    for address in (b.links.control, b.links.bulk):
        zmq_net.raw(address, b"c@1", (bytes(2001),))
    assert a.links.send("b", CANCEL)
    assert b.next().message == CANCEL
    assert b.nothing() and not [k for k in b.links.counters() if k.startswith("dropped")]


def test_bytes_that_are_no_zeromq_at_all_hurt_nobody(zmq_net: Net) -> None:
    b = zmq_net.node("b")
    a = zmq_net.node("a").knows(b)
    b.knows(a)
    with _plain_socket(b.links.control) as stream:
        stream.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
        assert a.links.send("b", CANCEL)
        assert b.next().message == CANCEL


def _plain_socket(address: str) -> socket.socket:
    transport, _, place = address.partition("://")
    if transport == "tcp":
        host, _, port = place.partition(":")
        return socket.create_connection((host, int(port)))
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(place)
    return stream


def test_a_living_nodes_socket_is_never_taken_over(short_folder: Path) -> None:
    place = f"ipc://{short_folder}"
    first = ZmqLinks("a", place, WireConfig(), Inbox())
    with pytest.raises(ConfigError, match="another process"):
        ZmqLinks("a", place, WireConfig(), Inbox())
    first.close()
    (short_folder / "a.c").touch()
    ZmqLinks("a", place, WireConfig(), Inbox()).close()


def test_ports_are_the_ones_that_were_asked_for() -> None:
    port = free_port_pair()
    links = ZmqLinks("a", f"tcp://127.0.0.1:{port}", WireConfig(), Inbox())
    assert links.control == f"tcp://127.0.0.1:{port}"
    assert links.bulk == f"tcp://127.0.0.1:{port + 1}"
    with pytest.raises(ConfigError, match="in use"):
        ZmqLinks("b", f"tcp://127.0.0.1:{port}", WireConfig(), Inbox())
    links.close()


def test_a_second_node_of_a_range_takes_the_next_ports() -> None:
    port = free_port_pair()
    place = f"tcp://127.0.0.1:{port}-{min(port + 20, 65535)}"
    nodes = [ZmqLinks(name, place, WireConfig(), Inbox()) for name in "ab"]
    assert len({address for node in nodes for address in (node.control, node.bulk)}) == 4
    for node in nodes:
        node.close()


def test_ipv6_loopback_works_where_there_is_one() -> None:
    if not _has_ipv6():
        pytest.skip("no IPv6 here")
    inbox = Inbox()
    a = ZmqLinks("a", "tcp://[::1]", WireConfig(), inbox)
    assert a.control.startswith("tcp://[::1]:")
    a.close()


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a@b", "a b", "x" * 65, "\n"])
def test_a_name_that_is_unfit_for_a_file_is_a_configuration_error(
    short_folder: Path, name: str
) -> None:
    with pytest.raises(ConfigError):
        ZmqLinks(name, f"ipc://{short_folder}", WireConfig(), Inbox())


def test_insecure_is_said_out_loud(caplog: pytest.LogCaptureFixture) -> None:
    address = _own_address()
    if address is None:
        pytest.skip("no address off loopback here")
    with caplog.at_level(logging.WARNING):
        ZmqLinks("a", f"tcp://{address}", WireConfig(insecure=True), Inbox()).close()
    assert "open to its network" in caplog.text


def _own_address() -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # chooses a route, sends nothing
        except OSError:
            return None
        return str(probe.getsockname()[0])
