"""What decoder processes answer, read with distrust: sizes and facts must be possible ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from PIL import Image

from epd.config.media import VideoLimits
from epd.media.decoded import VideoInfo
from epd.media.decoders import link, sealed
from epd.media.decoders.desks import MOST_PIXELS, Desks, picture_on
from epd.media.decoders.link import Malformed
from epd.media.decoders.sealed import Array

MOST_FPS = 1000

Answer = tuple[dict[str, Any], list[int]]


@dataclass(frozen=True, slots=True)
class Expected:
    """An array that may come: no more than `most` values."""

    dtype: str
    dimensions: int
    most: int


def arrays(answer: Answer, *expected: Expected) -> tuple[dict[str, Any], list[Array]]:
    """What was said, and the arrays that came with it: the first ones of those expected."""
    said, fds = answer
    try:
        described = said.get("arrays")
        if not isinstance(described, list) or not 0 < len(described) == len(fds) <= len(expected):
            raise Malformed("arrays")
        return said, [
            sealed.mapped(fd, one, dtype=each.dtype, dimensions=each.dimensions, most=each.most)
            for fd, one, each in zip(fds, described, expected, strict=False)
        ]
    finally:
        link.close(fds)


def picture(answer: Answer, desks: Desks, expected: Expected) -> Image.Image:
    """An RGB picture: on its desk, or in the memory that came."""
    said, fds = answer
    if "desk" in said:
        link.close(fds)
        width, height = sealed.checked_shape(said["desk"], 2)
        if not 0 < width * height <= MOST_PIXELS:
            raise Malformed("picture")
        return desks.picture((width, height))
    (array,) = arrays(answer, expected)[1]
    height, width, channels = array.shape
    if channels != 4 or not array.size:
        raise Malformed("picture")
    return picture_on(array, (width, height))


def check_count(frames: Array, count: int) -> None:
    """One frame for each that was asked for, three bytes per pixel."""
    if len(frames) != count or frames.shape[3] != 3:
        raise Malformed("frames")


def info(answer: Answer, limits: VideoLimits) -> VideoInfo:
    """What a container says."""
    said, fds = answer
    link.close(fds)
    found = said.get("info")
    if not isinstance(found, dict):
        raise Malformed("info")
    most = limits.max_seconds * MOST_FPS
    return VideoInfo(
        num_frames=int(_number(found, "num_frames", 1, most)),
        fps=_number(found, "fps", 1e-9, 1e9),
        duration_s=_number(found, "duration_s", 0, limits.max_seconds),
        width=int(_number(found, "width", 1, limits.max_pixels)),
        height=int(_number(found, "height", 1, limits.max_pixels)),
        has_sound=found.get("has_sound") is True,
    )


def rate(said: dict[str, Any]) -> float | None:
    """Of a series, where its file has one."""
    return None if said.get("rate") is None else _number(said, "rate", 0, 1e9)


def text(array: Array) -> str:
    """Its bytes as UTF-8."""
    try:
        return array.tobytes().decode()
    except UnicodeDecodeError:
        raise Malformed("text") from None


def _number(found: dict[str, Any], name: str, least: float, most: float) -> float:
    value = found.get(name)
    if isinstance(value, int | float) and math.isfinite(value) and least <= value <= most:
        return float(value)
    raise Malformed(name)
