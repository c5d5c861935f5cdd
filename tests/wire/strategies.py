"""Hypothesis strategies for every message of the registry, built from the annotations alone."""

from __future__ import annotations

import dataclasses
import types
import typing
from enum import Enum
from typing import Any

from hypothesis import strategies as st

from epd.wire.messages import REGISTRY

INT64 = st.integers(min_value=-(2**63), max_value=2**64 - 1)
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(max_size=20),
    int: st.one_of(st.integers(min_value=-1, max_value=300), INT64),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    bytes: st.binary(max_size=40),
    types.NoneType: st.none(),
}


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Values of an annotation."""
    if kind in PLAIN:
        return PLAIN[kind]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return st.sampled_from(list(kind))
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        fields = {field.name: values(hints[field.name]) for field in dataclasses.fields(kind)}
        return st.builds(typing.cast("type[Any]", kind), **fields)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and arguments[1:] == (...,):
        return st.lists(values(arguments[0]), max_size=4).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values, arguments))
    if origin is dict:
        return st.dictionaries(values(arguments[0]), values(arguments[1]), max_size=4)
    assert origin in (typing.Union, types.UnionType), kind
    return st.one_of(*map(values, arguments))


MESSAGES_BY_TAG = {tag: values(cls) for tag, cls in REGISTRY.items()}


def messages() -> st.SearchStrategy[Any]:
    """Any message."""
    return st.sampled_from(sorted(REGISTRY)).flatmap(MESSAGES_BY_TAG.__getitem__)
