"""Files of tensors, as torch and safetensors write them and as nobody should."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from epd.config import ItemLimits
from epd.errors import BadRequest
from epd.media.tensors import read_tensors

LIMITS = ItemLimits(max_bytes=1 << 20)
PLAIN = "it holds something else than one plain dense tensor"


def read(data: bytes, name: str = "rows") -> NDArray[np.generic]:
    """The one tensor."""
    [(key, values)] = read_tensors(name, data, LIMITS).items()
    assert key == name
    assert values.flags.c_contiguous and values.flags.writeable and values.dtype.isnative
    return values


def refusal(data: bytes) -> str:
    """The reason, after the name of the field."""
    with pytest.raises(BadRequest) as caught:
        read_tensors("rows", data, LIMITS)
    assert caught.value.param == "rows"
    return caught.value.message.removeprefix("rows: ")


def same(values: NDArray[np.generic], tensor: torch.Tensor) -> None:
    """Equal in shape, in dtype but for bfloat16, and in every value."""
    expected = tensor.float() if tensor.dtype is torch.bfloat16 else tensor
    np.testing.assert_array_equal(values, expected.detach().numpy(), strict=True)


def torch_saved(value: object) -> bytes:
    """What `torch.save` writes."""
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def zipped(records: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of these records, in order."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return file.getvalue()


def torch_zip(description: bytes, values: bytes = bytes(16), key: str = "0") -> bytes:
    """A file of `torch.save` with any description in it."""
    return zipped(
        {
            "archive/data.pkl": description,
            "archive/byteorder": b"little",
            f"archive/data/{key}": values,
            "archive/version": b"3\n",
        }
    )


def described(
    storage: str = "torch FloatStorage",
    *,
    key: str = "0",
    count: int = 4,
    offset: int = 0,
    shape: Sequence[int] = (2, 2),
    strides: Sequence[int] = (2, 1),
    rebuild: str = "torch._utils _rebuild_tensor_v2",
    more: bytes = b"",
) -> bytes:
    """The description of a tensor, opcode by opcode; `more` are further arguments of its making."""
    reference = (
        b"(" + _text("storage") + _name(storage) + _text(key) + _text("cpu") + _int(count) + b"tQ"
    )
    sizes = b"".join(b"(" + b"".join(map(_int, numbers)) + b"t" for numbers in (shape, strides))
    hooks = b"\x89" + _name("collections OrderedDict") + b")R"
    arguments = b"(" + reference + _int(offset) + sizes + hooks + more + b"t"
    return b"\x80\x02" + _name(rebuild) + arguments + b"R."


def called(name: str, *arguments: str) -> bytes:
    """A pickle that calls a function by name."""
    return b"\x80\x02" + _name(name) + b"(" + b"".join(map(_text, arguments)) + b"tR."


def safe(header: object, values: bytes = b"") -> bytes:
    """A file of safetensors with any header, or text in its place."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + values


def _name(name: str) -> bytes:
    return b"c" + name.replace(" ", "\n").encode() + b"\n"


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _int(number: int) -> bytes:
    if -(1 << 31) <= number < 1 << 31:
        return b"J" + struct.pack("<i", number)
    return b"\x8a\x08" + struct.pack("<q", number)
