"""Ready-made embeddings: one dense tensor from a file of bytes that a stranger sent.

Two formats: safetensors, and the zip that `torch.save` writes, whose pickle stream is read by an
interpreter of its own that knows nothing but plain tensors.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epd.config import ItemLimits
from epd.errors import BadRequest, TooLarge
from epd.media.decoded import Tensors
from epd.media.tensor_files.safetensors import read_safetensors
from epd.media.tensor_files.stored import ITEM_BYTES, MOST_DIMENSIONS, Stored
from epd.media.tensor_files.torch_save import read_torch_save

_ZIP = b"PK\3\4"
_PICKLE = b"\x80"


def read_tensors(name: str, data: bytes, limits: ItemLimits) -> Tensors:
    """The one tensor of a file, or the one called `name`, under that name.

    float16, float32, float64, int32 or int64; bfloat16 is widened to float32. The values are in
    order, finite, and a copy. BadRequest or TooLarge name what is wrong with `name`.
    """
    try:
        return {name: _read(name, data, limits.max_bytes)}
    except TooLarge as error:
        raise TooLarge(f"{name}: {error.message}", param=name) from None
    except BadRequest as error:
        raise BadRequest(f"{name}: {error.message}", param=name) from None


def _read(name: str, data: bytes, max_bytes: int) -> NDArray[Any]:
    if len(data) > max_bytes:
        raise TooLarge(f"file larger than {max_bytes} bytes")
    if data.startswith(_PICKLE):
        raise BadRequest("a bare pickle, such as torch.save wrote before torch 1.6: not read")
    stored = read_torch_save(data) if data.startswith(_ZIP) else read_safetensors(data, name)
    _refuse_outside(stored, max_bytes)
    values = _values(stored)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise BadRequest("it holds values that are not finite")
    return values


def _refuse_outside(stored: Stored, max_bytes: int) -> None:
    """All arithmetic is on Python's integers, which do not overflow."""
    if len(stored.shape) != len(stored.strides) or len(stored.shape) > MOST_DIMENSIONS:
        raise BadRequest(f"it has more than {MOST_DIMENSIONS} dimensions, or strides for others")
    item_bytes = ITEM_BYTES[stored.dtype]
    count = math.prod(stored.shape)
    if count == 0:
        raise BadRequest("it holds no values")
    if count * item_bytes > max_bytes:  # one value may be shown many times
        raise TooLarge(f"it is larger than {max_bytes} bytes")
    steps = zip(stored.shape, stored.strides, strict=True)
    last = stored.offset + sum((size - 1) * stride for size, stride in steps)
    if (last + 1) * item_bytes > len(stored.content):
        raise BadRequest("its shape and strides lead outside of its values")


def _values(stored: Stored) -> NDArray[Any]:
    item_bytes = ITEM_BYTES[stored.dtype]
    wide = stored.dtype == "bfloat16"
    little = np.dtype("uint16" if wide else stored.dtype).newbyteorder("<")
    # Where there is one index only, its stride is never taken and may be any number.
    strides = tuple(
        stride * item_bytes if size > 1 else 0
        for size, stride in zip(stored.shape, stored.strides, strict=True)
    )
    view: NDArray[Any] = np.ndarray(
        stored.shape, little, stored.content, stored.offset * item_bytes, strides
    )
    if wide:
        widened = view.astype(np.uint32, order="C")
        widened <<= 16
        return widened.view(np.float32)
    return view.astype(little.newbyteorder("="), order="C")
