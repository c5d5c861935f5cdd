"""Whatever the bytes are: a valid message or a ProtocolError, and memory in proportion to them."""

from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epd.errors import ProtocolError
from epd.wire.codec import decode, encode
from epd.wire.messages import REGISTRY
from tests.wire.strategies import messages

FUZZ = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}

ANY_VALUE = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(),
        st.text(max_size=5),
        st.binary(max_size=5),
        st.sampled_from(sorted(REGISTRY)),
        st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=4)),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)

MUTATIONS = st.lists(
    st.tuples(
        st.sampled_from(["set", "insert", "delete", "cut", "repeat"]),
        st.integers(0, 1 << 16),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=4,
)


def expect_message_or_protocol_error(data: bytes) -> None:
    try:
        to, message = decode(data)
    except ProtocolError as error:
        assert error.reason in {"malformed", "too_large", "version", "tag", "fields"}
        return
    assert type(message) in REGISTRY.values()
    assert decode(encode(message, to=to)) == (to, message)


def mutated(data: bytes, mutation: tuple[str, int, int]) -> bytes:
    how, at, value = mutation
    at %= len(data) + 1
    if how == "set":
        return data[:at] + bytes([value]) + data[at + 1 :]
    if how == "insert":
        return data[:at] + bytes([value]) + data[at:]
    if how == "delete":
        return data[:at] + data[at + 1 :]
    if how == "repeat":
        return data[: at + value] + data[at:]
    return data[:at]


@pytest.fixture(params=[1, pytest.param(8, marks=pytest.mark.slow)])
def times(request: pytest.FixtureRequest) -> int:
    """How many times as many examples as whenever tests run."""
    found: int = request.param
    return found


def test_random_bytes(times: int) -> None:
    @settings(max_examples=750 * times, **FUZZ)  # type: ignore[arg-type]
    @given(st.binary(max_size=200))
    def check(data: bytes) -> None:
        expect_message_or_protocol_error(data)

    check()


def test_mutated_messages(times: int) -> None:
    """Up to four cases to an example."""

    @settings(max_examples=300 * times, **FUZZ)  # type: ignore[arg-type]
    @given(messages(), MUTATIONS)
    def check(message: Any, mutations: list[tuple[str, int, int]]) -> None:
        data = encode(message, to="receiver")
        for mutation in mutations:
            data = mutated(data, mutation)
            expect_message_or_protocol_error(data)

    check()


def test_valid_msgpack_with_the_wrong_values(times: int) -> None:
    @settings(max_examples=200 * times, **FUZZ)  # type: ignore[arg-type]
    @given(st.sampled_from(sorted(REGISTRY)), ANY_VALUE)
    def check(tag: str, fields: Any) -> None:
        expect_message_or_protocol_error(msgpack.packb((1, tag, "receiver", fields)))

    check()


def padded(start: bytes, num_bytes: int) -> bytes:
    return start + b"\xc0" * (num_bytes - len(start))


BOMBS = {
    "array32 of 4 billion": b"\xdd\xff\xff\xff\xff",
    "map32 of 4 billion": b"\xdf\xff\xff\xff\xff",
    "str32 of 4 GB": b"\xdb\xff\xff\xff\xff",
    "bin32 of 4 GB": b"\xc6\xff\xff\xff\xff",
    "ext32 of 4 GB": b"\xc9\xff\xff\xff\xff\x01",
    "arrays as long as the frame, nested": padded(b"\xdc\xff\xff" * 1000, 80_000),
    "array32s as long as the frame, nested": padded(b"\xdd\x00\x01\x00\x00" * 1000, 80_000),
    "maps nested": padded(b"\xde\x7f\xff" * 500, 80_000),
    "1,000 deep": b"\x91" * 1000 + b"\xc0",
    "100,000 deep": b"\x91" * 100_000 + b"\xc0",
    "maps 100,000 deep": b"\x81\xa0" * 100_000 + b"\xc0",
    "empty maps": b"\xdc\xff\xff" + b"\x80" * 0xFFFF,
    "empty arrays": b"\xdc\xff\xff" + b"\x90" * 0xFFFF,
    "big integers": b"\xdc\x20\x00" + (b"\xcf" + b"\xff" * 8) * 0x2000,
}


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "as fields"])
@pytest.mark.parametrize("name", sorted(BOMBS))
def test_a_bomb_takes_no_memory_beyond_its_frame(name: str, *, inside: bool) -> None:
    """Python's objects are larger than their bytes; the factor is fixed, claims count nothing."""
    data = BOMBS[name]
    if inside:
        data = b"\x94\x01\xa6tokens\xa1x\x91" + data
    tracemalloc.start()
    try:
        expect_message_or_protocol_error(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * len(data) + (64 << 10)


@settings(max_examples=300, **FUZZ)  # type: ignore[arg-type]
@given(
    st.lists(
        st.tuples(st.sampled_from([0xDC, 0xDE, 0xDA, 0xC5]), st.integers(0, 0xFFFF)), max_size=300
    ),
    st.integers(0, 70_000),
)
def test_claimed_lengths_count_nothing(claims: list[tuple[int, int]], padding: int) -> None:
    data = b"".join(struct.pack(">BH", *claim) for claim in claims) + b"\xc0" * padding
    tracemalloc.start()
    try:
        expect_message_or_protocol_error(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * len(data) + (64 << 10)
