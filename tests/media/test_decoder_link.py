"""Messages between a decoder process and its parent, and what is none."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest

from epd.media.decoders import sealed
from epd.media.decoders.link import MOST_BYTES, Link, Malformed


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, Link]]:
    """Theirs, and ours."""
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, ours:
        yield theirs, Link(ours)


@pytest.mark.parametrize(
    "packet",
    [
        b"\xc1",
        b"\x81",
        b"\x90",
        b"{}",
        b"\xff",
        b"\x91" * 50_000,
        b"\x81\xa1\xff\x01",
        b"\x81\x90\x01",
        b"\xdf\xff\xff\xff\xff",
        b"\xc7\x0c\xff" + b"\xff" * 12,
        msgpack.packb("x"),
        msgpack.packb({"x": 1}) + b"\x01",
        bytes(MOST_BYTES + 1),
    ],
)
def test_packets_that_are_no_message_are_refused(
    ends: tuple[socket.socket, Link], packet: bytes
) -> None:
    ends[0].send(packet)
    with pytest.raises(Malformed):
        ends[1].receive()


def test_random_packets_are_messages_or_refused(ends: tuple[socket.socket, Link]) -> None:
    rng = random.Random(0)
    whole = msgpack.packb({"arrays": [[3, 4], [5]], "rate": 1.5, "x": [None, True, {"y": b"z"}]})
    for _ in range(3000):
        packet = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            packet[rng.randrange(len(packet))] = rng.randrange(256)
        ends[0].send(packet)
        try:
            message, fds = ends[1].receive()
        except Malformed:
            continue
        assert isinstance(message, dict)
        assert fds == []


def test_pieces_travel_with_their_message(ends: tuple[socket.socket, Link]) -> None:
    theirs, ours = ends
    fd = sealed.put([b"ab", b"", b"cde"])
    Link(theirs).send({"sizes": [2, 0, 3]}, [fd])
    os.close(fd)
    message, (received,) = ours.receive()
    assert sealed.taken(received, message["sizes"]) == [b"ab", b"", b"cde"]
    os.close(received)
    assert ours.alive
    theirs.close()
    assert not ours.alive
    with pytest.raises(EOFError):
        ours.receive()


def test_descriptors_that_come_with_nonsense_are_closed(ends: tuple[socket.socket, Link]) -> None:
    fd = sealed.put([b""])
    before = len(list(Path("/proc/self/fd").iterdir()))
    socket.send_fds(ends[0], [b"\xc1"], [fd, fd])
    socket.send_fds(ends[0], [b"\x80"], [fd] * 9)
    for _ in range(2):
        with pytest.raises(Malformed):
            ends[1].receive()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    os.close(fd)


def test_waiting_ends_when_its_time_is_up(ends: tuple[socket.socket, Link]) -> None:
    """In both directions, and the next message may have another time."""
    theirs, ours = ends
    ours.allow(0.01)
    with pytest.raises(TimeoutError):
        ours.receive()
    with pytest.raises(TimeoutError):
        for _ in range(10_000):
            ours.send({"x": bytes(60_000)})
    ours.allow(30.0)
    Link(theirs).send({"x": 1})
    assert ours.receive() == ({"x": 1}, [])


def test_messages_that_are_too_long_are_not_sent(ends: tuple[socket.socket, Link]) -> None:
    with pytest.raises(Malformed, match="too long"):
        ends[1].send({"x": bytes(MOST_BYTES)})
