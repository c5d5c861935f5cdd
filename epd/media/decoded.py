"""Media as decoded: what the media room hands to a family's processor. Plain arrays and facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One picture, upright, RGB."""

    image: Image.Image


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """What a video's container says, before any frame is decoded.

    `num_frames`, `fps` and `duration_s` are those of the file; of a list of frames they are what
    its sender said, else one frame a second.
    """

    num_frames: int
    fps: float
    duration_s: float
    width: int
    height: int
    has_sound: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """One channel of samples, float32 [samples] between -1 and 1."""

    samples: NDArray[np.float32]
    rate: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """Frames of a video, uint8 [frames, height, width, 3]; `indices` are their numbers in the file.

    `sound` where it was asked for and there is any.
    """

    frames: NDArray[np.uint8]
    indices: tuple[int, ...]
    info: VideoInfo
    sound: Sound | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A time series, float32 [steps, channels]; `rate` in steps per second where the file says."""

    values: NDArray[np.float32]
    rate: float | None = None


Media = Picture | Clip | Sound | Series

Tensors = dict[str, NDArray[Any]]
"""Ready-made embeddings by field name. bfloat16, which numpy has not, is widened to float32."""
