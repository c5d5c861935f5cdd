"""Ready-made embeddings for the Qwen-VL families: every field is checked before it is believed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epd.errors import BadRequest
from epd.media.decoded import Tensors
from epd.models.family import EmbedsField

Grid = tuple[int, int, int]
"""Patches of an item: frames (each made of temporal_patch_size pictures), height, width."""

IMAGE_EMBEDS = (
    EmbedsField(name="image_embeds", shape="[rows, width]"),
    EmbedsField(name="image_grid_thw", shape="[3]", dtype="int"),
)
VIDEO_EMBEDS = (
    EmbedsField(name="video_embeds", shape="[rows, width]"),
    EmbedsField(name="video_grid_thw", shape="[3]", dtype="int"),
)


def grid_of(tensors: Tensors, name: str, *, merge_size: int) -> Grid:
    """Three positive numbers; height and width fit whole tokens."""
    values = _field(tensors, name).reshape(-1)
    if values.dtype.kind not in "iu" or len(values) != 3:
        raise _wrong(name, "is not three whole numbers")
    frames, height, width = (int(value) for value in values)
    if min(frames, height, width) < 1 or height % merge_size or width % merge_size:
        raise _wrong(
            name, f"is {[frames, height, width]}: height and width are multiples of {merge_size}"
        )
    return frames, height, width


def rows_of(tensors: Tensors, name: str, *, num: int, width: int) -> NDArray[Any]:
    """Finite floating-point rows, as many and as wide as promised."""
    rows = _field(tensors, name)
    if rows.dtype.kind != "f":
        raise _wrong(name, f"is of {rows.dtype}, not floating point")
    if rows.shape != (num, width):
        raise _wrong(name, f"has the shape {list(rows.shape)}; its grid says {[num, width]}")
    if not np.isfinite(rows).all():
        raise _wrong(name, "has values that are no finite numbers")
    return rows


def seconds_of(tensors: Tensors, name: str, *, num: int) -> list[float]:
    """`num` finite times that are not negative."""
    values = _field(tensors, name).reshape(-1)
    if values.dtype.kind not in "fiu" or len(values) != num:
        raise _wrong(name, f"is not {num} numbers")
    seconds = [float(value) for value in values]
    if not all(math.isfinite(second) and second >= 0 for second in seconds):
        raise _wrong(name, "has times that are no positive numbers")
    return seconds


def _field(tensors: Tensors, name: str) -> NDArray[Any]:
    if name not in tensors:
        raise _wrong(name, "is missing")
    return tensors[name]


def _wrong(name: str, reason: str) -> BadRequest:
    return BadRequest(f"{name} {reason}", param=name)
