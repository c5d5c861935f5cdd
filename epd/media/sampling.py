"""Which frames of a video are taken. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def evenly(num_frames: int, total: int) -> list[int]:
    """`num_frames` numbers of frames spread over a video of `total`, its first and last among them.

    A video with fewer frames gives them all.
    """
    return _spread(min(num_frames, total), total)


def capped(indices: Sequence[int], most: int) -> list[int]:
    """At most `most` of the chosen frames, spread over them."""
    if len(indices) <= most:
        return list(indices)
    return [indices[place] for place in _spread(most, len(indices))]


def _spread(count: int, total: int) -> list[int]:
    places: list[int] = np.linspace(0, total - 1, count).round().astype(int).tolist()
    return places
