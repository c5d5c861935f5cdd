"""Files of torch.save that describe what they should not: refused, and nothing is executed."""

from __future__ import annotations

import io
import os
import posix
import struct

import pytest
import torch

from tests.media.saved_tensors import (
    PLAIN,
    called,
    described,
    read,
    refusal,
    same,
    torch_saved,
    torch_zip,
)

EXECUTED: list[str] = []


def execute(text: str) -> int:
    """What a hostile file calls; harmless, and it shows."""
    EXECUTED.append(text)
    return 0


class Reduced:
    """Made again by a call of its choice."""

    def __reduce__(self) -> tuple[object, ...]:
        return execute, ("reduced",)


HOSTILE: dict[str, bytes] = {
    "posix.system": torch_zip(called("posix system", "harm")),
    "os.system": torch_zip(called("os system", "harm")),
    "builtins.eval": torch_zip(called("builtins eval", "print(1)")),
    "reduce": torch_saved(Reduced()),
    "reduce beside a tensor": torch_saved((torch.ones(2), Reduced())),
    "in the hooks": torch_zip(
        described().replace(b"ccollections\nOrderedDict\n)R", called("posix system", "x")[2:-1])
    ),
    "as further argument": torch_zip(described(more=called("posix system", "x")[2:-1])),
    "instead of the rebuild": torch_zip(described(rebuild="posix system")),
    "before the tensor": torch_zip(
        b"\x80\x02" + called("posix system", "x")[2:-1] + b"0" + described()[2:]
    ),
    "after the tensor": torch_zip(described()[:-1] + called("posix system", "x")[2:-1] + b"0."),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_file_that_calls_code_is_refused_and_calls_nothing(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control is the unpickler, which does call it."""
    EXECUTED.clear()
    monkeypatch.setattr(posix, "system", execute)
    monkeypatch.setattr(os, "system", execute)
    monkeypatch.setattr("builtins.eval", execute)
    assert refusal(HOSTILE[kind]) == PLAIN
    assert EXECUTED == []
    unpickled(HOSTILE[kind])
    assert len(EXECUTED) == (0 if kind == "instead of the rebuild" else 1)


def unpickled(data: bytes) -> object:
    """What torch makes of it when it trusts it."""
    try:
        return torch.load(io.BytesIO(data), weights_only=False)
    except Exception as error:  # noqa: BLE001  the call has happened; what follows is nonsense
        return error


def test_a_description_written_by_hand_is_read() -> None:
    """The control of what follows: these files are refused for what they say alone."""
    values = struct.pack("<4f", 1, 2, 3, 4)
    data = torch_zip(described(), values)
    same(read(data), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    loaded = unpickled(data)
    assert isinstance(loaded, torch.Tensor)
    same(read(data), loaded)


WRONG: dict[str, tuple[bytes, str]] = {
    "row too many": (described(shape=(3, 2)), "its shape and strides lead outside of its values"),
    "stride": (described(strides=(4, 1)), "its shape and strides lead outside of its values"),
    "offset": (described(offset=1), "its shape and strides lead outside of its values"),
    "negative offset": (described(offset=-1), PLAIN),
    "negative stride": (described(strides=(-2, 1)), PLAIN),
    "negative size": (described(shape=(-2, -2)), PLAIN),
    "strides missing": (described(strides=(1,)), "it has more than 8 dimensions"),
    "nine dimensions": (described(shape=(1,) * 9, strides=(1,) * 9), "more than 8 dimensions"),
    "no values": (described(shape=(0, 2)), "it holds no values"),
    "storage larger": (described(count=5), "it has more or fewer values than it says"),
    "storage smaller": (described(count=3), "it has more or fewer values than it says"),
    "storage wider": (described("torch DoubleStorage"), "more or fewer values than it says"),
    "storage negative": (described(count=-4), PLAIN),
    "key unknown": (described(key="1"), "its values are missing"),
    "key a path": (described(key="../../0"), PLAIN),
    "key other digits": (described(key="\u0661"), PLAIN),
    "shown a million times": (
        described(shape=(1 << 20, 1 << 20), strides=(0, 0)),
        "it is larger than 1048576 bytes",
    ),
    "shape overflows": (
        described(shape=((1 << 31) - 1,) * 8, strides=(0,) * 8),
        "it is larger than 1048576 bytes",
    ),
    "long numbers": (described(shape=(1 << 40, 1), strides=(0, 0)), PLAIN),
    "untyped": (described("torch UntypedStorage"), "its dtype is none of"),
    "storage of code": (described("posix system"), PLAIN),
    "other rebuild": (described(rebuild="torch._utils _rebuild_sparse_tensor"), PLAIN),
    "metadata": (described(more=b"}"), PLAIN),
    "bool as number": (described(offset=0).replace(b"QJ\0\0\0\0", b"Q\x89"), PLAIN),
    "protocol 4": (b"\x80\x04" + described()[2:], "another pickle protocol"),
    "no protocol": (described()[2:], PLAIN),
    "protocol twice": (b"\x80\x02" + described(), PLAIN),
    "two tensors": (described()[:-1] + described()[2:], PLAIN),
    "bytes behind": (described() + b".", PLAIN),
    "no end": (described()[:-1], "a damaged description of a tensor"),
    "empty": (b"", "a damaged description of a tensor"),
    "stack empty": (b"\x80\x02R.", "a damaged description of a tensor"),
    "memo empty": (b"\x80\x02h\x07.", "a damaged description of a tensor"),
    "no mark": (b"\x80\x02)t.", "a damaged description of a tensor"),
    "not text": (b"\x80\x02X\x01\0\0\0\xff.", "a damaged description of a tensor"),
    "endless text": (b"\x80\x02X\xff\xff\xff\xff.", "a damaged description of a tensor"),
    "huge": (b"\x80\x02" + b"(" * 20000 + b".", PLAIN),
    "deep": (b"\x80\x02)" + b"\x85" * 16000 + b".", PLAIN),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_description_is_refused(kind: str) -> None:
    """For the reason that it has."""
    description, reason = WRONG[kind]
    assert reason in refusal(torch_zip(description))


def test_a_stride_that_is_never_taken_may_be_anything() -> None:
    """torch writes such strides for sizes of one."""
    largest = (1 << 31) - 1
    data = torch_zip(described(shape=(1, 4, 1), strides=(largest, 1, largest)))
    same(read(data), torch.zeros(1, 4, 1))


def test_big_endian_values_are_refused() -> None:
    data = torch_zip(described()).replace(b"little", b"bigbig")
    assert refusal(data) == "its values are not little-endian"
