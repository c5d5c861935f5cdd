"""Where a tensor lies in a file."""

from __future__ import annotations

from dataclasses import dataclass

ITEM_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "int32": 4, "int64": 8}
"""The dtypes that are read."""

DTYPES = ", ".join(ITEM_BYTES)

MOST_DIMENSIONS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """`offset` and `strides` count values, not bytes, from the start of `content`.

    Nothing is promised about them: whoever reads values checks that they lie within.
    """

    content: memoryview
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
