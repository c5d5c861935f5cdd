"""Mutated files of tensors: read or refused, never anything else."""

from __future__ import annotations

import random

import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save as safe_saved

from epd.errors import BadRequest
from epd.media.tensors import read_tensors
from tests.media.saved_tensors import (
    LIMITS,
    described,
    torch_saved,
    torch_zip,
)

VALID = [
    torch_saved(torch.ones(4)),
    torch_saved(torch.arange(6).reshape(2, 3)[:, 1:]),
    torch_zip(described()),
    safe_saved({"rows": torch.ones(3, dtype=torch.bfloat16), "b": torch.ones(2)}),
]


def tried(data: bytes) -> bool:
    """Whether it was read; anything but a tensor or a BadRequest is an error."""
    try:
        values = read_tensors("rows", data, LIMITS)["rows"]
    except BadRequest as error:
        assert 0 < len(error.message) < 160
        return False
    assert values.nbytes <= 2 * LIMITS.max_bytes
    return True


@given(st.sampled_from(VALID), st.data())
def test_mutated_files_are_read_or_refused(valid: bytes, data: st.DataObject) -> None:
    """Bytes changed, removed, doubled."""
    file = bytearray(valid)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(file) - 1))
        length = data.draw(st.sampled_from([0, 1, 2, 4, 8, 40]))
        file[at : at + length] = data.draw(st.binary(max_size=8))
    tried(bytes(file))


@given(st.data())
def test_mutated_descriptions_are_read_or_refused(data: st.DataObject) -> None:
    """Within a sound zip, so that the interpreter is what is tried."""
    description = bytearray(described())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(description) - 1))
        description[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    tried(torch_zip(bytes(description)))


@given(st.lists(st.sampled_from([bytes([n]) for n in range(256)] + [b"ctorch\nFloatStorage\n"])))
def test_any_opcodes_are_read_or_refused(opcodes: list[bytes]) -> None:
    tried(torch_zip(b"\x80\x02" + b"".join(opcodes) + b"."))


def test_many_random_mutations_are_read_or_refused() -> None:
    """With a control: some of them hit nothing that matters."""
    draw = random.Random(5)
    outcomes = set()
    for _ in range(4000):
        file = bytearray(draw.choice(VALID))
        for _ in range(draw.randint(1, 3)):
            file[draw.randrange(len(file))] = draw.randrange(256)
        outcomes.add(tried(bytes(file[: draw.choice([len(file)] * 9 + [draw.randrange(900)])])))
    assert outcomes == {True, False}
