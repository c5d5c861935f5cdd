"""Ready-made embeddings for the LLaVA-style families: every field is checked before use."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from epd.errors import BadRequest
from epd.media.decoded import Tensors
from epd.models.family import EmbedsField

IMAGE_EMBEDS = EmbedsField(name="image_embeds", shape="[rows, width]")
VIDEO_EMBEDS = EmbedsField(name="video_embeds", shape="[rows, width]")
IMAGE_SIZES = EmbedsField(
    name="image_sizes", shape="[2]: height, width of the picture", dtype="int"
)

_MOST_PIXELS = 1 << 16
"""Along a side, of a picture that nobody has seen."""


def rows_of(tensors: Tensors, name: str, *, width: int) -> NDArray[Any]:
    """Finite floating-point rows, at least one."""
    rows = tensors[name]
    if rows.ndim == 3 and len(rows) == 1:
        rows = rows[0]
    if rows.dtype.kind != "f" or rows.ndim != 2 or rows.shape[1] != width or not len(rows):
        shape = list(tensors[name].shape)
        raise wrong(name, f"is {tensors[name].dtype} {shape}, not floating point [rows, {width}]")
    if not np.isfinite(rows).all():
        raise wrong(name, "has values that are no finite numbers")
    return rows


def size_of(tensors: Tensors) -> tuple[int, int]:
    """Height and width of the picture that was encoded."""
    values = tensors[IMAGE_SIZES.name].reshape(-1)
    if values.dtype.kind not in "iu" or len(values) != 2:
        raise wrong(IMAGE_SIZES.name, "is not two whole numbers")
    height, width = (int(value) for value in values)
    if not (1 <= height <= _MOST_PIXELS and 1 <= width <= _MOST_PIXELS):
        raise wrong(IMAGE_SIZES.name, f"is {[height, width]}, no size of a picture")
    return height, width


def check_number(found: int, promised: int, asked_for: str) -> None:
    """As many rows as the picture or video takes."""
    if found != promised:
        raise wrong(asked_for, f"has {found} rows where {promised} are needed")


def wrong(name: str, reason: str) -> BadRequest:
    """What is wrong with a field."""
    return BadRequest(f"{name} {reason}", param=name)
