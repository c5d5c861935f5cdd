"""Messages to bytes and back: msgpack [version, tag, to, fields], nothing else on the wire.

Every message class is compiled once into an encoder and a decoder of its fields. Decoding is
strict: exact types, exact counts, no maps (a dict travels as pairs), no extension types, and
nothing is built before the whole header is known to be there. The wire never names a class.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import types
import typing
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Final

import msgpack

from epd.errors import ProtocolError
from epd.wire.messages import PROTOCOL_VERSION, REGISTRY

MAX_HEADER_BYTES: Final = 8 << 20

Convert = Callable[[Any], Any]

_PLAIN: Final = (str, int, bool, bytes)  # exactly these types, as msgpack gives them


class _Mismatch(Exception):
    """A value is not of the declared type; the text names types, never the value."""


def encode(message: object, *, to: str) -> bytes:
    """Bytes of `message` for the incarnation `to` ("" where the receiver's is not known yet).

    ProtocolError for values that no receiver would accept: the fault is the caller's.
    """
    tag: str = message.TAG  # type: ignore[attr-defined]
    try:
        fields = _codec(REGISTRY[tag]).encode(message)
        data: bytes = msgpack.packb((PROTOCOL_VERSION, tag, to, fields))
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise ProtocolError("unencodable", f"{tag}: {error}") from None
    if len(data) > MAX_HEADER_BYTES:
        raise ProtocolError("too_large", f"{tag} of {len(data)} bytes")
    return data


def decode(data: bytes | memoryview) -> tuple[str, Any]:
    """(to, message) of a header. ProtocolError for anything that is not exactly one message.

    Memory stays proportional to len(data), whatever lengths the bytes claim.
    """
    header = _unpack(data)
    if type(header) is not tuple or len(header) != 4:
        raise ProtocolError("malformed", "no header of four values")
    version, tag, to, fields = header
    if type(version) is not int or version != PROTOCOL_VERSION:
        raise ProtocolError("version", f"not protocol version {PROTOCOL_VERSION}")
    if type(tag) is not str or tag not in REGISTRY:
        raise ProtocolError("tag", "unknown message tag")
    if type(to) is not str:
        raise ProtocolError("fields", f"{tag}: receiver is {_kind(to)}, not str")
    try:
        return to, _codec(REGISTRY[tag]).decode(fields)
    except _Mismatch as mismatch:
        raise ProtocolError("fields", f"{tag}: {mismatch}") from None


def _unpack(data: bytes | memoryview) -> Any:
    """The plain values of a header: ints, floats, strings, bytes, None, bools and tuples."""
    size = len(data)
    if size > MAX_HEADER_BYTES:
        raise ProtocolError("too_large", f"header of {size} bytes")
    try:
        # Walk first without building: a builder trusts declared lengths and would allocate for
        # arrays whose elements are not there.
        walker = msgpack.Unpacker(max_buffer_size=max(size, 1))
        walker.feed(data)
        walker.skip()
        if walker.tell() != size:
            raise ProtocolError("malformed", "bytes after the header")
        return msgpack.unpackb(
            data,
            use_list=False,
            max_map_len=0,
            max_ext_len=0,
            object_hook=_refuse_map,
            ext_hook=_refuse_extension,
        )
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise ProtocolError("malformed", type(error).__name__) from None


def _refuse_map(value: object) -> None:
    raise ProtocolError("malformed", "a map")


def _refuse_extension(code: int, value: bytes) -> None:
    raise ProtocolError("malformed", "an extension type")


def _kind(value: object) -> str:
    return type(value).__name__


@dataclasses.dataclass(frozen=True, slots=True)
class _Codec:
    """How one type travels. `encode` None: as it is."""

    decode: Convert
    encode: Convert | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class _ClassCodec:
    """How one dataclass travels: its fields' values in order of declaration."""

    decode: Convert
    encode: Convert


_compiled: dict[type, _ClassCodec] = {}


def _codec(cls: type) -> _ClassCodec:
    found = _compiled.get(cls)
    if found is None:
        found = _compiled[cls] = _dataclass(cls)
    return found


def _dataclass(cls: type) -> _ClassCodec:
    hints = typing.get_type_hints(cls)
    names = tuple(field.name for field in dataclasses.fields(cls))
    kinds = tuple(hints[name] for name in names)
    if all(kind in _PLAIN for kind in kinds):
        return _ClassCodec(_decode_plain(cls, names, kinds), _fields(names))
    codecs = tuple(map(_of, kinds))
    decoders = tuple(codec.decode for codec in codecs)
    converted = tuple((i, codec.encode) for i, codec in enumerate(codecs) if codec.encode)
    getter = _fields(names)
    build = _builder(cls, names)

    def decode_fields(value: Any) -> Any:
        if type(value) is not tuple or len(value) != len(names):
            raise _Mismatch(f"{cls.__name__} takes {len(names)} fields")
        return build([decode(v) for decode, v in zip(decoders, value)])  # noqa: B905 - checked above

    def encode_fields(value: Any) -> Any:
        fields = list(getter(value))
        for i, convert in converted:
            fields[i] = convert(fields[i])
        return fields

    return _ClassCodec(decode_fields, encode_fields)


def _fields(names: tuple[str, ...]) -> Convert:
    """The values of these attributes as a tuple, also where there is only one."""
    getter = operator.attrgetter(*names)
    return getter if len(names) > 1 else lambda value: (getter(value),)


def _builder(cls: type, names: tuple[str, ...]) -> Callable[[Sequence[Any]], Any]:
    """How to make one of all its fields' values. Tokens come by the thousand: where a class checks
    nothing itself, its slots are filled without asking its frozen __init__ for each.
    """
    if hasattr(cls, "__post_init__") or "__slots__" not in vars(cls):
        return lambda values: cls(**dict(zip(names, values, strict=True)))
    setters = tuple(vars(cls)[name].__set__ for name in names)
    new = object.__new__

    def fill(values: Sequence[Any]) -> Any:
        made: Any = new(cls)
        for setter, value in zip(setters, values):  # noqa: B905 - as many as there are names
            setter(made, value)
        return made

    return fill


def _decode_plain(cls: type, names: tuple[str, ...], kinds: tuple[type, ...]) -> Convert:
    """For classes of plain fields alone, keys above all: one comparison checks every type."""

    build = _builder(cls, names)

    def decode(value: Any) -> Any:
        if type(value) is not tuple or tuple(map(type, value)) != kinds:
            raise _Mismatch(f"{cls.__name__} takes {[kind.__name__ for kind in kinds]}")
        return build(value)

    return decode


def _of(kind: Any) -> _Codec:
    """The codec of one annotation. A kind that no message may have fails at its first use."""
    if kind in _PLAIN:
        return _Codec(_exactly(kind))
    if kind is float:
        return _Codec(_finite, float)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _enum(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        nested = _codec(kind)
        return _Codec(nested.decode, nested.encode)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return _sequence(arguments[0]) if arguments[1:] == (...,) else _fixed(arguments)
    if origin is dict and arguments[0] is str:
        return _pairs(arguments[1])
    if origin in (typing.Union, types.UnionType) and arguments[1:] == (types.NoneType,):
        return _optional(arguments[0])
    raise AssertionError(f"no codec for {kind}")


def _exactly(kind: type) -> Convert:
    def decode(value: Any) -> Any:
        if type(value) is not kind:
            raise _Mismatch(f"{_kind(value)} where {kind.__name__} belongs")
        return value

    return decode


def _finite(value: Any) -> float:
    if type(value) is not float or not math.isfinite(value):
        raise _Mismatch("no finite float")
    return value


def _enum(kind: type[Enum]) -> _Codec:
    members: dict[Any, Enum] = {member.value: member for member in kind}

    def decode(value: Any) -> Enum:
        if type(value) is not str or value not in members:
            raise _Mismatch(f"no {kind.__name__}")
        return members[value]

    return _Codec(decode, operator.attrgetter("value"))


def _sequence(kind: Any) -> _Codec:
    """tuple[kind, ...]. Plain kinds are checked all at once: token ids come by the thousand."""
    if kind in _PLAIN:
        allowed = {kind}

        def decode_plain(value: Any) -> Any:
            if type(value) is not tuple or not allowed.issuperset(map(type, value)):
                raise _Mismatch(f"no sequence of {kind.__name__}")
            return value

        return _Codec(decode_plain)
    element = _of(kind)
    convert = element.encode or _same

    def decode(value: Any) -> Any:
        if type(value) is not tuple:
            raise _Mismatch(f"{_kind(value)} where a sequence belongs")
        return tuple([element.decode(v) for v in value])

    return _Codec(decode, lambda value: tuple([convert(v) for v in value]))


def _fixed(kinds: tuple[Any, ...]) -> _Codec:
    elements = tuple(map(_of, kinds))

    def decode(value: Any) -> Any:
        if type(value) is not tuple or len(value) != len(elements):
            raise _Mismatch(f"no tuple of {len(elements)}")
        return tuple([e.decode(v) for e, v in zip(elements, value, strict=True)])

    def encode(value: Any) -> Any:
        return tuple([(e.encode or _same)(v) for e, v in zip(elements, value, strict=True)])

    return _Codec(decode, encode)


def _pairs(kind: Any) -> _Codec:
    sequence = _sequence(tuple[str, kind])

    def decode(value: Any) -> Any:
        pairs = sequence.decode(value)
        found = dict(pairs)
        if len(found) != len(pairs):
            raise _Mismatch("a repeated key")
        return found

    assert sequence.encode is not None
    encode_items = sequence.encode
    return _Codec(decode, lambda value: encode_items(value.items()))


def _optional(kind: Any) -> _Codec:
    inner = _of(kind)
    convert = inner.encode

    def decode(value: Any) -> Any:
        return None if value is None else inner.decode(value)

    if convert is None:
        return _Codec(decode)
    return _Codec(decode, lambda value: None if value is None else convert(value))


def _same(value: Any) -> Any:
    return value
