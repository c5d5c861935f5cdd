"""What a picture, a clip or a sound becomes: patches, frames and rows. Pure."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from epd.errors import ConfigError

SIZES = {"480p": (854, 480), "720p": (1280, 720), "1080p": (1920, 1080), "4k": (3840, 2160)}

_SIZE = re.compile(r"(\d+)x(\d+)")
_TIMES = re.compile(r"(?P<size>[^*]+)(?:\*(?P<times>\d+))?")
_WINDOW_S = 30.0
"""Whisper's encoders take windows of this length, padded."""
_POSITIONS, _ROWS = 1500, 750
"""Of a window: after its convolutions, and after the pooling of two by two."""


@dataclass(frozen=True, slots=True)
class Picture:
    """In pixels, before it is resized."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Clip:
    """The frames that are taken of a video."""

    picture: Picture
    frames: int


@dataclass(frozen=True, slots=True)
class Sound:
    """Audio."""

    seconds: float


Item = Picture | Clip | Sound


@dataclass(frozen=True, slots=True)
class Cut:
    """`frames` pictures of `patches` patches, which become `rows` rows together."""

    frames: int
    patches: int
    rows: int


def parse_picture(text: str) -> list[Picture]:
    """Read "1080p", "1920x1080" or "1080p*4" (four of them)."""
    found = _TIMES.fullmatch(text)
    size = SIZES.get(found["size"].lower()) if found else None
    if found and size is None and (pair := _SIZE.fullmatch(found["size"])):
        size = (int(pair[1]), int(pair[2]))
    if not found or size is None or 0 in size:
        raise ConfigError(f"{text!r} is no size: {', '.join(SIZES)} or WIDTHxHEIGHT, and *N for N")
    return [Picture(*size)] * int(found["times"] or 1)


def parse_video(text: str) -> Clip:
    """Read "720p:16": sixteen frames."""
    size, colon, frames = text.partition(":")
    if not colon or not frames.isdecimal() or not int(frames):
        raise ConfigError(f"{text!r} is no video: a size, a colon, and how many frames are taken")
    return Clip(parse_picture(size)[0], int(frames))


@dataclass(frozen=True, slots=True, kw_only=True)
class Patches:
    """How a vision tower cuts: `patch` pixels, `side` patches of a row's square, frames in `pairs`.

    Pixels of a picture are kept between `least` and `most`.
    """

    patch: int
    side: int
    pairs: int
    least: int
    most: int


def cut_picture(picture: Picture, patches: Patches) -> Cut:
    """Both sides become multiples of patch x side, the nearest ones unless pixels are limited."""
    width, height = resized(picture, patches)
    count = (width // patches.patch) * (height // patches.patch)
    return Cut(1, count, count // patches.side**2)


def cut_clip(clip: Clip, patches: Patches) -> Cut:
    """Frames go in pairs, the last one twice where it has none."""
    one = cut_picture(clip.picture, patches)
    frames = math.ceil(clip.frames / patches.pairs)
    return Cut(frames, one.patches, frames * one.rows)


def cut_sound(sound: Sound) -> Cut:
    """A short one costs a whole window, but only its own seconds become rows."""
    windows = max(1, math.ceil(sound.seconds / _WINDOW_S))
    rows = max(1, math.ceil(_ROWS * sound.seconds / _WINDOW_S))
    return Cut(windows, _POSITIONS, rows)


def resized(picture: Picture, patches: Patches) -> tuple[int, int]:
    """Width and height that the tower sees."""
    unit = patches.patch * patches.side
    sides = (picture.width, picture.height)
    near = [max(unit, round(side / unit) * unit) for side in sides]
    area, pixels = near[0] * near[1], picture.width * picture.height
    if area > patches.most:
        ratio = math.sqrt(pixels / patches.most)
        near = [max(unit, math.floor(side / ratio / unit) * unit) for side in sides]
    elif area < patches.least:
        ratio = math.sqrt(patches.least / pixels)
        near = [math.ceil(side * ratio / unit) * unit for side in sides]
    return near[0], near[1]
