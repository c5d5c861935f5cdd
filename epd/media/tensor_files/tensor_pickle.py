"""The description of one plain tensor, from the stream of opcodes that `torch.save` writes.

An interpreter for nothing else: the names in the stream are compared with a short list and never
looked up, and the only things it can build are numbers, texts, tuples and that description. What it
does not know, it refuses.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeVar

from epd.errors import BadRequest
from epd.media.tensor_files.stored import DTYPES

T = TypeVar("T")

_LONGEST = 16384
_PROTOCOL = 2


class _Name(Enum):
    """What a stream may refer to; `HOOKS` is what the call of ORDERED_DICT gives."""

    REBUILD = auto()
    ORDERED_DICT = auto()
    HOOKS = auto()
    MARK = auto()


class _Storage(Enum):
    """Types of storages, by the dtype of their values."""

    FloatStorage = "float32"
    DoubleStorage = "float64"
    HalfStorage = "float16"
    BFloat16Storage = "bfloat16"
    IntStorage = "int32"
    LongStorage = "int64"


_NAMES = {
    (b"torch._utils", b"_rebuild_tensor_v2"): _Name.REBUILD,
    (b"collections", b"OrderedDict"): _Name.ORDERED_DICT,
    **{(b"torch", storage.name.encode()): storage for storage in _Storage},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageRef:
    """The record that has the values, and how many it should have."""

    dtype: str
    key: str
    num_values: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRef:
    """A tensor's values within a storage, counted in values."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_tensor_pickle(stream: bytes) -> TensorRef:
    """BadRequest unless the stream describes one plain dense tensor and nothing else."""
    if len(stream) > _LONGEST:
        raise _not_plain()
    walk = _Walk(stream)
    try:
        while walk.step():
            pass
    except (IndexError, KeyError, UnicodeDecodeError, struct.error):
        raise BadRequest("a damaged description of a tensor") from None
    if walk.at != len(stream) or len(walk.stack) != 1:
        raise _not_plain()
    return _as(walk.stack[0], TensorRef)


class _Walk:
    """One stream: where it is read, and what has been built."""

    def __init__(self, stream: bytes) -> None:
        self.stream = stream
        self.at = 0
        self.stack: list[object] = []
        self.memo: dict[int, object] = {}

    def step(self) -> bool:
        """One opcode; False at the end of the stream."""
        opcode = self._take(1)
        if (opcode == b"\x80") != (self.at == 1):  # the protocol stands first and only there
            raise _not_plain()
        match opcode:
            case b"\x80":
                if self._number("<B") != _PROTOCOL:
                    raise BadRequest(f"written with another pickle protocol than {_PROTOCOL}")
            case b".":
                return False
            case b"q":
                self.memo[self._number("<B")] = self.stack[-1]
            case b"R":
                arguments, called = self.stack.pop(), self.stack.pop()
                self.stack.append(_result(called, arguments))
            case b"t":
                values = self._since_mark()
                self.stack[-1] = values
            case b"\x85" | b"\x86" | b"\x87":
                self.stack.append(self._last(opcode[0] - 0x84))
            case b"Q":
                self.stack.append(_storage(self.stack.pop()))
            case _:
                self.stack.append(self._value(opcode))
        return True

    def _value(self, opcode: bytes) -> object:
        """What opcodes push that take nothing from the stack."""
        match opcode:
            case b"(":
                return _Name.MARK
            case b")":
                return ()
            case b"\x88":
                return True
            case b"\x89":
                return False
            case b"h":
                return self.memo[self._number("<B")]
            case b"K":
                return self._number("<B")
            case b"M":
                return self._number("<H")
            case b"J":
                return self._number("<i")
            case b"X":
                return self._take(self._number("<I")).decode()
            case b"c":
                return _named(self._line(), self._line())
        raise _not_plain()

    def _since_mark(self) -> tuple[object, ...]:
        """Taken from the stack; the mark stays on top."""
        count = 0
        while self.stack[-1 - count] is not _Name.MARK:
            count += 1
        return self._last(count)

    def _last(self, count: int) -> tuple[object, ...]:
        rest = len(self.stack) - count
        if rest < 0:
            raise IndexError
        values = tuple(self.stack[rest:])
        del self.stack[rest:]
        return values

    def _number(self, format: str) -> int:
        return int(struct.unpack(format, self._take(struct.calcsize(format)))[0])

    def _line(self) -> bytes:
        end = self.stream.find(b"\n", self.at)
        if end < 0:
            raise IndexError
        return self._take(end + 1 - self.at)[:-1]

    def _take(self, length: int) -> bytes:
        taken = self.stream[self.at : self.at + length]
        if len(taken) < length:
            raise IndexError
        self.at += length
        return taken


def _named(module: bytes, name: bytes) -> object:
    found = _NAMES.get((module, name))
    if found is not None:
        return found
    if module == b"torch" and name.endswith(b"Storage"):
        raise BadRequest(f"its dtype is none of {DTYPES}")
    raise _not_plain()


def _storage(reference: object) -> StorageRef:
    kind, storage, key, location, num_values = _of_length(reference, 5)
    if _as(kind, str) != "storage" or not isinstance(location, str):
        raise _not_plain()
    key = _as(key, str)
    if not (key.isascii() and key.isdecimal()):
        raise _not_plain()
    dtype = _as(storage, _Storage).value
    return StorageRef(dtype=dtype, key=key, num_values=_count(num_values))


def _result(called: object, arguments: object) -> object:
    if called is _Name.ORDERED_DICT and arguments == ():
        return _Name.HOOKS
    if called is not _Name.REBUILD:
        raise _not_plain()
    storage, offset, shape, strides, requires_grad, hooks = _of_length(arguments, 6)
    if not isinstance(requires_grad, bool) or hooks is not _Name.HOOKS:
        raise _not_plain()
    return TensorRef(
        storage=_as(storage, StorageRef),
        offset=_count(offset),
        shape=tuple(map(_count, _as(shape, tuple))),
        strides=tuple(map(_count, _as(strides, tuple))),
    )


def _of_length(value: object, length: int) -> tuple[object, ...]:
    values = _as(value, tuple)
    if len(values) != length:
        raise _not_plain()
    return values


def _count(value: object) -> int:
    """A boolean is no number here, although Python says so."""
    if isinstance(value, bool) or _as(value, int) < 0:
        raise _not_plain()
    return _as(value, int)


def _as(value: object, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise _not_plain()
    return value


def _not_plain() -> BadRequest:
    return BadRequest("it holds something else than one plain dense tensor")
