"""Pixels as the processors hand them to the vision tower, padded to one length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from demo.sizes import TOKEN

PATCH = TOKEN // 2
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
_MEAN = np.asarray(MEAN, np.float32) * 255
_SCALE = 1 / (np.asarray(DEVIATION, np.float32) * 255)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patches:
    """Grids of patches: `pixels` float32 [grids, patches, values], `places` [grids, patches, 2] of
    row and column, `known` bool [grids, patches] where there is one."""

    pixels: torch.Tensor
    places: torch.Tensor
    known: torch.Tensor


def picture_patches(pictures: Sequence[NDArray[np.uint8]], tokens: int) -> Patches:
    """Pictures [height, width, 3], each padded to `tokens` tokens. Values: channel, row, column.

    The processor says each value twice, once for each of two equal frames; here it is said once.
    """
    return _padded([_cut(picture[None])[0] for picture in pictures], pictures, tokens)


def clip_patches(clips: Sequence[NDArray[np.uint8]], tokens: int) -> Patches:
    """Clips [frames, height, width, 3]: one grid for two frames. Values: channel, time, row,
    column."""
    cut, firsts = [], []
    for clip in clips:
        for pair in clip.reshape(-1, 2, *clip.shape[1:]):
            both = _cut(pair)  # [2, patches, channel * row * column]
            values = both.reshape(2, -1, 3, PATCH * PATCH).transpose(1, 2, 0, 3)
            cut.append(values.reshape(values.shape[0], -1))
            firsts.append(pair[0])
    return _padded(cut, firsts, tokens)


def _cut(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[frames, patches, values], four patches of a token together, channel first."""
    num, height, width, _ = frames.shape
    pixels = (frames.astype(np.float32) - _MEAN) * _SCALE
    rows, columns = height // TOKEN, width // TOKEN
    parts = pixels.reshape(num, rows, 2, PATCH, columns, 2, PATCH, 3)
    found: Any = parts.transpose(0, 1, 4, 2, 5, 7, 3, 6)
    values: NDArray[np.float32] = found.reshape(num, rows * columns * 4, -1)
    return values


def _padded(
    cut: Sequence[NDArray[np.float32]], frames: Sequence[NDArray[np.uint8]], tokens: int
) -> Patches:
    num = len(cut)
    pixels = np.zeros((num, tokens * 4, cut[0].shape[1] if cut else 0), np.float32)
    places = np.zeros((num, tokens * 4, 2), np.int64)
    known = np.zeros((num, tokens * 4), bool)
    for i, (values, frame) in enumerate(zip(cut, frames, strict=True)):
        pixels[i, : len(values)] = values
        places[i, : len(values)] = _places(frame.shape[0] // TOKEN, frame.shape[1] // TOKEN)
        known[i, : len(values)] = True
    return Patches(
        pixels=torch.from_numpy(pixels),
        places=torch.from_numpy(places),
        known=torch.from_numpy(known),
    )


def _places(rows: int, columns: int) -> NDArray[np.int64]:
    """[patches, 2] of row and column, four of a token together."""
    row, column = np.meshgrid(np.arange(rows * 2), np.arange(columns * 2), indexing="ij")
    both = np.stack([row, column], -1).reshape(rows, 2, columns, 2, 2)
    return both.transpose(0, 2, 1, 3, 4).reshape(-1, 2)
