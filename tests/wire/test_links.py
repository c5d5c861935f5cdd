"""The protocol of nodes: the same claims over inproc, ipc and tcp."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epd.errors import ProtocolError
from epd.types import ItemKey, Modality, RequestKey
from epd.wire.codec import encode
from epd.wire.links import BULK_MESSAGES, Delivery, PeerLost
from epd.wire.messages import (
    REGISTRY,
    Cancel,
    EncodeItem,
    Heartbeat,
    HeartbeatReply,
    KvChunk,
    Leaving,
    Members,
    Payload,
    Register,
    RegisterRefused,
    Welcome,
)
from tests.wire.conftest import Net, Node, eventually
from tests.wire.strategies import MESSAGES_BY_TAG

CANCEL = Cancel(request=RequestKey("r", 1))


def chunk(frame: bytes | None, *, number: int = 0) -> KvChunk:
    slot, nbytes = (-1, len(frame)) if frame is not None else (3, 64)
    return KvChunk(
        request=RequestKey("r", 1),
        first_token=number,
        num_tokens=1,
        first_layer=0,
        num_layers=1,
        payload=Payload(dtype="float32", shape=(nbytes // 4,), nbytes=nbytes, slot=slot),
    )


def pair(net: Net, **options: Any) -> tuple[Node, Node]:
    """Two nodes that know each other."""
    a, b = net.node("a"), net.node("b", **options)
    return a.knows(b), b.knows(a)


def deliverable(message: Any, sender: Node, frame: bytes) -> tuple[Any, bytes | None]:
    """`message` with those fields true that the wire itself looks at, and its frame."""
    if isinstance(message, Register):
        return dataclasses.replace(message, member=sender.member), None
    if isinstance(message, EncodeItem):
        return message, frame if message.url is None else None
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
    counted = a.links.counters()
    assert counted["sent"] == 1 and counted["sent_bytes"] > len(frame)
    assert b.links.counters()["received_bytes"] == counted["sent_bytes"]


def test_a_frame_that_was_not_promised_is_the_senders_error(net: Net) -> None:
    a, _ = pair(net)
    item = EncodeItem(item=ItemKey("r", 0, 1), modality=Modality.IMAGE, url=None, text_before="")
    for message, frame in ((CANCEL, b"x"), (chunk(b"1234"), b"123"), (chunk(None), b"x")):
        with pytest.raises(ProtocolError, match="frame"):
            a.links.send("b", message, frame)
    with pytest.raises(ProtocolError, match="frame"):
        a.links.send("b", item, None)
    assert a.links.send("b", item, b"")


# ---- who may talk


def test_an_unknown_senders_messages_are_dropped_and_counted(net: Net) -> None:
    a, b = net.node("a"), net.node("b")
    a.knows(b)
    assert a.links.send("b", CANCEL)
    assert a.links.send("b", chunk(b"1234"), b"1234")
    eventually(lambda: b.dropped("unknown_sender") == 2)
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
    assert worker.links.send(address, Register(member=worker.member, fingerprint={"dtype": "f"}))
    asked = gateway.next()
    assert asked.sender == "worker" and asked.message.member == worker.member
    gateway.links.connect(asked.message.member)
    welcome = Welcome(gateway="gateway", incarnation=gateway.links.incarnation)
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
    """Which address a Welcome answers is not known; its sender is, from its first message on."""
    worker = net.node("worker")
    gateways = [net.node("gateway-0").knows(worker), net.node("gateway-1").knows(worker)]
    for gateway in gateways:
        worker.links.connect_unknown(gateway.links.control)
    for gateway in gateways:
        name, incarnation = gateway.links.name, gateway.links.incarnation
        assert gateway.links.send("worker", Welcome(gateway=name, incarnation=incarnation))
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
    welcome = Welcome(gateway="gateway", incarnation=gateway.links.incarnation)
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
    assert a.links.send("b", Welcome(gateway="a", incarnation=a.links.incarnation))
    eventually(lambda: b.dropped("unknown_sender") == 1)


def test_a_stranger_registers_nobody_but_itself(net: Net) -> None:
    a, b = net.node("a"), net.node("b")
    a.knows(b)
    other = dataclasses.replace(a.member, name="c")
    assert a.links.send("b", Register(member=other, fingerprint={}))
    eventually(lambda: b.dropped("identity") == 1)
    assert b.nothing()


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
    net.raw(b.links.bulk if bulk else b.links.control, a.links.identity, parts)
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
    net.raw(b.links.control, a.links.identity, (encode(chunk(b"1234"), to=to), b"1234"))
    net.raw(b.links.bulk, a.links.identity, (encode(CANCEL, to=to),))
    eventually(lambda: b.dropped("channel") == 2)


def test_a_frame_of_another_length_than_promised_is_dropped(net: Net) -> None:
    a, b = net.node("a"), net.node("b")
    b.knows(a)
    header = encode(chunk(b"1234"), to=b.links.incarnation)
    net.raw(b.links.bulk, a.links.identity, (header, b"12345678"))
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


def test_nothing_is_lost_or_reordered_behind_a_full_inbox(net: Net) -> None:
    a, b = pair(net, capacity=3)
    sent = 0
    got: list[int] = []
    while len(got) < 400:
        while sent < 400 and a.links.send("b", chunk(None, number=sent)):
            sent += 1
        got.append(b.next().message.first_token)
    assert got == list(range(400))


def answer_heartbeats(delivery: Delivery) -> object | None:
    if isinstance(delivery.message, Heartbeat):
        return HeartbeatReply(sequence=delivery.message.sequence, step_age_ms=0, gauges={})
    return None


def test_what_the_io_thread_answers_never_reaches_the_inbox(net: Net) -> None:
    a, b = pair(net, on_io=answer_heartbeats)
    assert a.links.send("b", Heartbeat(sequence=3))
    assert a.next().message == HeartbeatReply(sequence=3, step_age_ms=0, gauges={})
    assert a.links.send("b", CANCEL)
    assert b.next().message == CANCEL


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
