"""The codec: what it promises about good messages, and about everything else."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epd.errors import ProtocolError
from epd.types import FinishReason, RequestKey, SamplingParams, Stage, TokenRun
from epd.wire.codec import MAX_HEADER_BYTES, decode, encode
from epd.wire.messages import (
    PROTOCOL_VERSION,
    REGISTRY,
    Heartbeat,
    HeartbeatReply,
    ItemMoved,
    Tokens,
)
from tests.wire.strategies import MESSAGES_BY_TAG

RUN = TokenRun(request=RequestKey("r", 1), first_index=0, token_ids=(5,))


def header(*, version: Any = PROTOCOL_VERSION, tag: Any, to: Any = "x", fields: Any) -> bytes:
    packed: bytes = msgpack.packb((version, tag, to, fields))
    return packed


@pytest.mark.parametrize("tag", sorted(REGISTRY))
@settings(max_examples=30)
@given(data=st.data(), to=st.text(max_size=40))
def test_every_message_comes_back_equal(tag: str, data: st.DataObject, to: str) -> None:
    message = data.draw(MESSAGES_BY_TAG[tag])
    came_to, came = decode(memoryview(encode(message, to=to)))
    assert (came_to, came) == (to, message)
    assert type(came) is REGISTRY[tag]


def test_types_come_back_exactly() -> None:
    """Enums are enums, sequences tuples, a float that was given as an int a float."""
    params = SamplingParams(temperature=1, top_p=0.5)
    _, run = decode(encode(Tokens(runs=(RUN, dataclasses.replace(RUN, finish_reason=None))), to=""))
    assert type(run.runs) is tuple and type(run.runs[0].token_ids) is tuple
    stop = dataclasses.replace(RUN, finish_reason=FinishReason.STOP)
    _, stopped = decode(encode(Tokens(runs=(stop,)), to=""))
    assert stopped.runs[0].finish_reason is FinishReason.STOP
    cls = REGISTRY["kv.handoff"]
    _, handoff = decode(
        encode(
            cls(
                request=RequestKey("r", 1),
                token_ids=(1, 2),
                choices=((0, 7),),
                position_delta=-3,
                sampling=params,
                first_index=0,
            ),
            to="",
        )
    )
    assert type(handoff.sampling.temperature) is float


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "malformed"),
        (b"\x94", "malformed"),
        (encode(Heartbeat(sequence=1), to="x") + b"\xc0", "malformed"),
        (msgpack.packb([1, 2, 3]), "malformed"),
        (msgpack.packb({"version": 1}), "malformed"),
        (header(tag="cluster.heartbeat", fields={}), "malformed"),
        (header(tag="cluster.heartbeat", fields=msgpack.ExtType(5, b"x")), "malformed"),
        (header(tag="cluster.heartbeat", fields=msgpack.Timestamp(1, 1)), "malformed"),
        (header(version=2, tag="cluster.heartbeat", fields=(1,)), "version"),
        (header(version=True, tag="cluster.heartbeat", fields=(1,)), "version"),
        (header(tag="no.such", fields=(1,)), "tag"),
        (header(tag=7, fields=(1,)), "tag"),
        (header(tag=(), fields=(1,)), "tag"),
        (header(tag="cluster.heartbeat", to=None, fields=(1,)), "fields"),
        (header(tag="cluster.heartbeat", fields=()), "fields"),
        (header(tag="cluster.heartbeat", fields=(1, 2)), "fields"),
        (header(tag="cluster.heartbeat", fields=(True,)), "fields"),
        (header(tag="cluster.heartbeat", fields=(1.0,)), "fields"),
        (header(tag="cluster.heartbeat", fields=None), "fields"),
        (header(tag="cluster.heartbeat_reply", fields=(1, 1, (("a", 1), ("a", 2)))), "fields"),
        (header(tag="request.cancel", fields=(("r", "1"),)), "fields"),
        (header(tag="request.cancel", fields=((b"r", 1),)), "fields"),
        (header(tag="tokens", fields=(((("r", 1), 0, (1, True), None),),)), "fields"),
        (header(tag="tokens", fields=(((("r", 1), 0, (1,), "no such reason"),),)), "fields"),
        (b"\x94\x01\xa9cluster.x\xa1\xff\x90", "malformed"),
        (bytes(MAX_HEADER_BYTES + 1), "too_large"),
    ],
)
def test_what_is_no_message_is_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(data)
    assert caught.value.reason == reason


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_refused(value: float) -> None:
    message = REGISTRY["kv.handoff"](
        request=RequestKey("r", 1),
        token_ids=(),
        choices=(),
        position_delta=0,
        sampling=SamplingParams(temperature=value),
        first_index=0,
    )
    with pytest.raises(ProtocolError):
        decode(encode(message, to=""))


@pytest.mark.parametrize(
    "message",
    [
        Heartbeat(sequence=1 << 64),
        ItemMoved(request=RequestKey("\ud800", 1), item=None, encoder=""),  # type: ignore[arg-type]
        HeartbeatReply(sequence=1, step_age_ms=1, gauges=3),  # type: ignore[arg-type]
    ],
)
def test_a_value_that_cannot_travel_is_the_senders_error(message: object) -> None:
    with pytest.raises(ProtocolError, match="unencodable"):
        encode(message, to="x")


def test_errors_never_repeat_what_the_peer_sent() -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(header(tag="cluster.heartbeat", fields=("<script>",)))
    assert "script" not in caught.value.message


def test_stage_words_on_the_wire_are_their_values() -> None:
    assert [str(stage) for stage in Stage] == ["encode", "prefill", "decode"]


def test_a_steps_tokens_are_cheap() -> None:
    """Thousands of messages per second are the I/O thread's daily bread."""
    message = Tokens(runs=(RUN,))
    decode(encode(message, to="x"))
    best = min(_seconds_of_100(message) for _ in range(20))
    assert best / 100 < 200e-6, "an encode and decode of one run; 20 us on an idle core"


def _seconds_of_100(message: object) -> float:
    start = time.perf_counter()
    for _ in range(100):
        decode(encode(message, to="x"))
    return time.perf_counter() - start
