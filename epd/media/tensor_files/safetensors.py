"""Files of safetensors: a length, a JSON header, and the values of all tensors without a gap."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from epd.errors import BadRequest
from epd.media.tensor_files.stored import DTYPES, ITEM_BYTES, Stored

_LENGTH_BYTES = 8
_LONGEST_HEADER = 65536
_METADATA = "__metadata__"
_DTYPES = {
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "I32": "int32",
    "I64": "int64",
}


def read_safetensors(data: bytes, name: str) -> Stored:
    """The tensor called `name`, or the only one there is."""
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    values = memoryview(data)[_LENGTH_BYTES + length :]
    if not 2 <= length <= _LONGEST_HEADER or len(data) < _LENGTH_BYTES + length:
        raise BadRequest("neither safetensors nor a torch.save file")
    header = _header(data[_LENGTH_BYTES : _LENGTH_BYTES + length])
    tensors = {key: value for key, value in header.items() if key != _METADATA}
    _refuse_gaps(tensors, len(values))
    if name not in tensors and len(tensors) != 1:
        raise BadRequest(f"it holds {len(tensors)} tensors, none of that name")
    return _stored(tensors.get(name) or next(iter(tensors.values())), values)


def _header(text: bytes) -> dict[str, object]:
    try:
        header = json.loads(text.decode(), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError):
        raise _damaged() from None
    if not isinstance(header, dict):
        raise _damaged()
    return header


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _damaged()
    return found


def _refuse_gaps(tensors: Mapping[str, object], num_bytes: int) -> None:
    """The values of all tensors together are the file, each byte in one of them."""
    at = 0
    for begin, end in sorted(map(_span, tensors.values())):
        if begin != at or end < begin:
            raise _damaged()
        at = end
    if at != num_bytes:
        raise _damaged()


def _span(tensor: object) -> tuple[int, int]:
    span = _counts(_fields(tensor)["data_offsets"])
    if len(span) != 2:
        raise _damaged()
    return span[0], span[1]


def _stored(tensor: object, values: memoryview) -> Stored:
    fields = _fields(tensor)
    dtype = _DTYPES.get(str(fields["dtype"]))
    if dtype is None:
        raise BadRequest(f"its dtype is none of {DTYPES}")
    shape = _counts(fields["shape"])
    begin, end = _span(tensor)
    if math.prod(shape) * ITEM_BYTES[dtype] != end - begin:
        raise BadRequest("it has more or fewer values than it says")
    strides = tuple(math.prod(shape[index + 1 :]) for index in range(len(shape)))
    return Stored(content=values[begin:end], dtype=dtype, offset=0, shape=shape, strides=strides)


def _fields(tensor: object) -> Mapping[str, object]:
    if not isinstance(tensor, dict) or set(tensor) != {"dtype", "shape", "data_offsets"}:
        raise _damaged()
    return tensor


def _counts(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(n) is int and 0 <= n < 1 << 48 for n in value):
        raise _damaged()
    return tuple(value)


def _damaged() -> BadRequest:
    return BadRequest("a damaged safetensors file")
