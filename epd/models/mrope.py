"""Positions of items for rotary embeddings with three axes (time, height, width).

Text advances all three axes together. A grid starts where the text before it ended, spreads over
the axes, and the text after it goes on behind the grid's longest side. Positions are numpy arrays
[3, tokens], counted from where the item starts; whole numbers but for places in time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[Any]


def text(length: int) -> Positions:
    """Tokens that count up: [3, length]."""
    return np.tile(np.arange(length), (3, 1))


def grid(frames: Sequence[float] | Positions | int, height: int, width: int) -> Positions:
    """Rows of a merged grid in row-major order: [3, frames * height * width].

    `frames`: how many, or the place in time of each.
    """
    times = np.arange(frames) if isinstance(frames, int) else np.asarray(frames)
    axes = np.meshgrid(times, np.arange(height), np.arange(width), indexing="ij")
    return np.stack([axis.reshape(-1) for axis in axes])


def behind(parts: Sequence[Positions]) -> Positions:
    """Each part starts one behind the highest position of the part before it."""
    at = 0
    placed: list[Positions] = []
    for part in parts:
        placed.append(part + at)
        at = placed[-1].max(initial=at - 1) + 1
    return np.concatenate(placed, axis=1) if placed else text(0)


def pack(positions: Positions) -> tuple[bytes, float]:
    """(positions, advance) of an ItemLayout."""
    advance = float(positions.max(initial=-1)) + 1
    return positions.astype("<f4").tobytes(), advance
