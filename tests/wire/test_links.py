"""The protocol of nodes: the same claims over inproc, ipc and tcp."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epd.errors import ProtocolError
from epd.types import ItemKey, Modality
from epd.wire.codec import encode
from epd.wire.links import BULK_MESSAGES
from epd.wire.messages import (
    REGISTRY,
    EncodeItem,
    Found,
    Heartbeat,
    HeartbeatReply,
    KvChunk,
    Recalled,
    Register,
)
from tests.wire.conftest import CANCEL, Net, Node, answer_heartbeats, chunk, eventually, pair
from tests.wire.strategies import MESSAGES_BY_TAG


def deliverable(message: Any, sender: Node, frame: bytes) -> tuple[Any, bytes | None]:
    """`message` with those fields true that the wire itself looks at, and its frame."""
    if isinstance(message, Register):
        return dataclasses.replace(message, member=sender.member), None
    if isinstance(message, EncodeItem):
        return message, frame if message.url is None else None
    if isinstance(message, Recalled):
        return message, frame if message.found is Found.KEPT else None
    if not isinstance(message, BULK_MESSAGES):
        return message, None
    payload = message.payload
    if payload.slot >= 0:
        return message, None
    payload = dataclasses.replace(payload, nbytes=len(frame))
    return dataclasses.replace(message, payload=payload), frame


def test_every_message_is_delivered_as_it_was_sent(net: Net) -> None:
    a, b = pair(net)

    @settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data(), st.binary(max_size=64))
    def deliver_each(data: st.DataObject, frame: bytes) -> None:
        for tag in REGISTRY:
            drawn = data.draw(MESSAGES_BY_TAG[tag])
            message, with_frame = deliverable(drawn, a, frame)
            assert a.links.send("b", message, with_frame)
            came = b.next()
            assert (came.sender, came.incarnation) == ("a", a.links.incarnation)
            assert came.message == message
            assert (None if came.frame is None else bytes(came.frame)) == with_frame

    deliver_each()
    assert not [name for name in b.links.counters() if name.startswith("dropped")]


def test_messages_of_one_lane_arrive_in_order(net: Net) -> None:
    a, b = pair(net)
    for sequence in range(500):
        assert a.links.send("b", Heartbeat(sequence=sequence))
    assert [b.next().message.sequence for _ in range(500)] == list(range(500))


def test_a_large_frame_arrives_whole_and_read_only(net: Net) -> None:
    a, b = pair(net)
    frame = bytes(range(256)) * 4096
    assert a.links.send("b", chunk(frame), frame)
    came = b.next()
    assert came.frame == frame and came.frame.readonly
    eventually(lambda: a.links.counters()["sent"] == 1)  # counted after it is on its way
    sent_bytes = a.links.counters()["sent_bytes"]
    assert sent_bytes > len(frame)
    assert b.links.counters()["received_bytes"] == sent_bytes


def test_a_frame_that_was_not_promised_is_the_senders_error(net: Net) -> None:
    a, _ = pair(net)
    item = EncodeItem(item=ItemKey("r", 0, 1), modality=Modality.IMAGE, url=None, text_before="")
    for message, frame in ((CANCEL, b"x"), (chunk(b"1234"), b"123"), (chunk(None), b"x")):
        with pytest.raises(ProtocolError, match="frame"):
            a.links.send("b", message, frame)
    with pytest.raises(ProtocolError, match="frame"):
        a.links.send("b", item, None)
    assert a.links.send("b", item, b"")


# ---- bytes


@pytest.mark.parametrize(
    ("reason", "bulk", "parts"),
    [
        ("malformed", False, (b"",)),
        ("malformed", False, (b"\xc1\xc1",)),
        ("malformed", False, (b"\x94" * 5000,)),
        ("parts", False, (b"a", b"b", b"c")),
        ("parts", False, tuple(b"x" for _ in range(500))),
        ("malformed", True, (b"garbage", b"frame")),
        ("tag", False, (b"\x94\x01\xa4evil\xa0\x90",)),
        ("version", False, (b"\x94\x63\xa6tokens\xa0\x91\x90",)),
    ],
)
def test_malformed_bytes_of_a_peer_are_dropped_and_the_loop_lives(
    net: Net, reason: str, parts: tuple[bytes, ...], *, bulk: bool
) -> None:
    a, b, c = net.node("a"), net.node("b"), net.node("c")
    b.knows(a, c)
    c.knows(b)
    net.raw(b.links.bulk if bulk else b.links.control, a.identity, parts)
    eventually(lambda: b.dropped(reason) == 1)
    assert c.links.send("b", CANCEL)
    assert b.next().message == CANCEL
    assert b.nothing()


@pytest.mark.parametrize("identity", [b"", b"nobody", b"@", b"a@", b"\xff@x", b"\x00" * 200])
def test_an_identity_that_is_none_is_dropped(net: Net, identity: bytes) -> None:
    b = net.node("b")
    net.raw(b.links.control, identity, (encode(CANCEL, to=b.links.incarnation),))
    eventually(lambda: b.dropped("identity") == 1)
    assert b.nothing()


def test_bulk_on_the_control_channel_is_dropped_and_the_reverse(net: Net) -> None:
    a, b = net.node("a"), net.node("b")
    b.knows(a)
    to = b.links.incarnation
    net.raw(b.links.control, a.identity, (encode(chunk(b"1234"), to=to), b"1234"))
    net.raw(b.links.bulk, a.identity, (encode(CANCEL, to=to),))
    eventually(lambda: b.dropped("channel") == 2)


def test_a_frame_of_another_length_than_promised_is_dropped(net: Net) -> None:
    a, b = net.node("a"), net.node("b")
    b.knows(a)
    header = encode(chunk(b"1234"), to=b.links.incarnation)
    net.raw(b.links.bulk, a.identity, (header, b"12345678"))
    eventually(lambda: b.dropped("frame") == 1)
    assert b.nothing()


def test_a_message_over_the_limit_is_the_senders_error(net: Net) -> None:
    a = net.node("a", max_message_bytes=1000)
    b = net.node("b")
    a.knows(b)
    with pytest.raises(ProtocolError, match="too_large"):
        a.links.send("b", chunk(bytes(1004)), bytes(1004))
    assert a.links.send("b", chunk(bytes(1000)), bytes(1000))


# ---- backpressure


def test_a_full_queue_refuses_and_blocks_nobody(net: Net) -> None:
    gone = net.node("gone")
    gone.links.close()
    a, b = net.node("a", high_water=5), net.node("b")
    a.knows(gone, b)
    b.knows(a)
    assert [a.links.send("gone", CANCEL) for _ in range(7)] == [True] * 5 + [False] * 2
    assert a.links.send("b", CANCEL)
    assert b.next().message == CANCEL


def test_a_stalled_peer_delays_neither_others_nor_its_own_control(net: Net) -> None:
    """b takes nothing from its inbox: bulk to it backs up as far as the sender."""
    a = net.node("a", high_water=8)
    b = net.node("b", capacity=1, on_io=answer_heartbeats)
    c = net.node("c")
    a.knows(b, c)
    b.knows(a)
    c.knows(a)
    frame = bytes(1 << 20)
    eventually(lambda: not a.links.send("b", chunk(frame), frame))
    eventually(lambda: b.inbox.full)
    assert a.links.send("c", chunk(frame), frame)
    assert c.next().frame == frame
    assert a.links.send("b", Heartbeat(sequence=1))
    assert a.next().message.sequence == 1, "answered although the inbox is full"
    assert isinstance(b.next().message, KvChunk)


def test_no_bulk_is_lost_behind_a_full_inbox(net: Net) -> None:
    a, b = pair(net, capacity=3)
    sent = 0
    got: list[int] = []
    while len(got) < 400:
        while sent < 400 and a.links.send("b", chunk(None, number=sent)):
            sent += 1
        got.append(b.next().message.first_token)
    assert sorted(got) == list(range(400))


def test_no_control_is_lost_or_reordered_behind_a_full_inbox(net: Net) -> None:
    a, b = pair(net, capacity=3)
    sent = 0
    got: list[int] = []
    while len(got) < 400:
        while sent < 400 and a.links.send("b", Heartbeat(sequence=sent)):
            sent += 1
        got.append(b.next().message.sequence)
    assert got == list(range(400))


def test_what_the_io_thread_answers_never_reaches_the_inbox(net: Net) -> None:
    a, b = pair(net, on_io=answer_heartbeats)
    assert a.links.send("b", Heartbeat(sequence=3))
    assert a.next().message == HeartbeatReply(sequence=3, step_age_ms=0, gauges={})
    assert a.links.send("b", CANCEL)
    assert b.next().message == CANCEL
