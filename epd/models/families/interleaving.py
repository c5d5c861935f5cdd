"""In which order the rows of a video and those of its sound stand, and where. Pure.

An order lists the video's rows, 0 to num_video, and those of the sound, which are counted on behind
them. A sound has one row per position.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from epd.models import mrope

Order = NDArray[np.int64]


def by_chunks(times: Sequence[float], num_sound: int, chunk: int) -> list[Order]:
    """The rows of each stretch of `chunk` positions: those of its frames, then its sound's.

    `times` are those of the video's rows, and do not fall.
    """
    seen = _stretches(times, chunk)
    heard = [part + len(times) for part in _stretches(range(num_sound), chunk)]
    order: list[Order] = []
    for i in range(max(len(seen), len(heard))):
        order += seen[i : i + 1] + heard[i : i + 1]
    return order


def by_time(times: Sequence[float], num_sound: int) -> list[Order]:
    """Each row of the video before the sound of its time.

    In two parts: the second one is what is left when either of them has come to its end.
    """
    every = np.concatenate([np.asarray(times, dtype=np.float64), np.arange(num_sound)])
    order: Order = np.argsort(every, kind="stable")
    is_sound = order >= len(times)
    others = np.flatnonzero(is_sound != is_sound[-1])
    end = int(others[-1]) + 1 if len(others) else 0
    return [order[:end], order[end:]]


def placed(
    parts: Sequence[Order], video: mrope.Positions, num_sound: int
) -> tuple[mrope.Positions, float]:
    """[3, rows] in order, counted from the first, and the position behind the last part."""
    every = np.concatenate([video, mrope.text(num_sound)], axis=1)
    return every[:, np.concatenate(parts)], float(every[:, parts[-1]].max()) + 1


def _stretches(times: Sequence[float], chunk: int) -> list[Order]:
    """As transformers cuts them: a stretch ends before the first row that is behind it, and every
    cut moves the end by one chunk, even where that row is behind several."""
    cuts: list[int] = []
    for i, time in enumerate(times):
        if time >= (len(cuts) + 1) * chunk:
            cuts.append(i)
    return list(np.split(np.arange(len(times)), cuts))
