"""Files of safetensors, right and wrong."""

from __future__ import annotations

import copy
import struct

import pytest
import torch

from tests.media.saved_tensors import (
    read,
    refusal,
    safe,
    same,
)

ONE = {"rows": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}


def one(**fields: object) -> bytes:
    """A file with one tensor, some fields of which are other."""
    header = copy.deepcopy(ONE)
    header["rows"].update(fields)  # type: ignore[arg-type]
    return safe(header, bytes(16))


SAFE: dict[str, tuple[bytes, str]] = {
    "no bytes": (b"", "neither safetensors nor a torch.save file"),
    "text": (b"This is no tensor at all.", "neither safetensors nor a torch.save file"),
    "npy": (b"\x93NUMPY" + bytes(200), "neither safetensors nor a torch.save file"),
    "header too long": (struct.pack("<Q", 1 << 62) + b"{}", "neither"),
    "header cut": (safe(ONE, bytes(16))[:20], "neither"),
    "header no JSON": (safe(b"{rows}"), "a damaged safetensors file"),
    "header no UTF-8": (safe(b'{"\xff": 1}'), "a damaged safetensors file"),
    "header deep": (safe(b"[" * 60000), "a damaged safetensors file"),
    "header with long numbers": (safe(b'{"a": ' + b"9" * 60000 + b"}"), "a damaged"),
    "header a list": (safe([ONE]), "a damaged safetensors file"),
    "name twice": (safe(b'{"a": 1, "a": 1}'), "a damaged safetensors file"),
    "tensor a number": (safe({"rows": 1}), "a damaged safetensors file"),
    "field missing": (safe({"rows": {"dtype": "F32"}}), "a damaged safetensors file"),
    "field too many": (one(more=1), "a damaged safetensors file"),
    "shape no list": (one(shape=4), "a damaged safetensors file"),
    "shape negative": (one(shape=[-2, -2]), "a damaged safetensors file"),
    "shape real": (one(shape=[2.0, 2.0]), "a damaged safetensors file"),
    "shape of truths": (one(shape=[True, 4]), "a damaged safetensors file"),
    "shape huge": (one(shape=[1 << 60, 1 << 60]), "a damaged safetensors file"),
    "shape too large": (one(shape=[1 << 40]), "more or fewer values than it says"),
    "shape too small": (one(shape=[3]), "more or fewer values than it says"),
    "dtype unknown": (one(dtype="F7"), "its dtype is none of"),
    "dtype a list": (one(dtype=["F32"]), "its dtype is none of"),
    "offsets beyond": (one(data_offsets=[0, 20]), "a damaged safetensors file"),
    "offsets backwards": (one(data_offsets=[16, 0]), "a damaged safetensors file"),
    "offsets late": (one(data_offsets=[4, 20]), "a damaged safetensors file"),
    "offsets short": (one(data_offsets=[0]), "a damaged safetensors file"),
    "values behind": (safe(ONE, bytes(20)), "a damaged safetensors file"),
    "tensors overlap": (
        safe({**ONE, "b": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, bytes(16)),
        "a damaged safetensors file",
    ),
    "no values": (
        safe({"rows": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}),
        "it holds no values",
    ),
    "many dimensions": (one(shape=[1] * 9 + [4]), "more than 8 dimensions"),
}


@pytest.mark.parametrize("kind", SAFE)
def test_a_wrong_file_of_safetensors_is_refused(kind: str) -> None:
    data, reason = SAFE[kind]
    assert reason in refusal(data)


def test_a_header_written_by_hand_is_read() -> None:
    """The control of the above, with the metadata that libraries add."""
    data = safe({"__metadata__": {"format": "pt"}, **ONE}, struct.pack("<4f", 1, 2, 3, 4))
    same(read(data), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
