"""What each token of a picture shows, and each row of a sound: labels that only training needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from demo.facts import CELLS, COLOURS, DIRECTIONS, NUMBERS, SHAPES, Motion, Scene, Thing
from demo.sounds import PITCHES, Heard

WAYS = (None, *DIRECTIONS)
SHOWN = {
    "shape": len(SHAPES) + 1,
    "colour": len(COLOURS) + 1,
    "cell": len(CELLS) + 1,
    "motion": len(WAYS) + 1,
}
"""Classes of what a token shows; 0 is none. Only a clip's tokens have a motion."""

HEARD = {"pitch": len(PITCHES) + 1, "begun": len(NUMBERS), "tones": len(NUMBERS)}
"""Classes of a sound's row: its pitch (0 is none), tones begun so far, and those of the sound."""

UNSURE = -1
_WITHIN = 0.7  # of the radius: a token whose middle is so near shows the shape
_BEYOND = 1.25  # of the radius: one that is farther away does not


def picture_labels(
    scenes: Sequence[Scene], grids: Sequence[tuple[int, int]], tokens: int
) -> torch.Tensor:
    """int64 [pictures, tokens, SHOWN]; UNSURE at edges, at padding, and of all motion."""
    found = np.full((len(scenes), tokens, len(SHOWN)), UNSURE, np.int64)
    for i, (scene, (rows, columns)) in enumerate(zip(scenes, grids, strict=True)):
        found[i, : rows * columns, :3] = _grid(scene, rows, columns).reshape(-1, 3)
    return torch.from_numpy(found)


def cells(scene: Scene, rows: int, columns: int) -> list[int]:
    """Of each token one more than the cell of the thing that it shows, or 0."""
    found: list[int] = _grid(scene, rows, columns)[..., 2].clip(min=0).flatten().tolist()
    return found


def clip_labels(
    motions: Sequence[Motion], grids: Sequence[tuple[int, int]], tokens: int
) -> torch.Tensor:
    """As picture_labels, one grid for two frames, at the place between both; and its motion."""
    scenes, sizes, ways = [], [], []
    for motion, grid in zip(motions, grids, strict=True):
        for first, second in zip(motion.frames[::2], motion.frames[1::2], strict=True):
            a, b = first.things[0], second.things[0]
            middle = replace(a, x=(a.x + b.x) / 2, y=(a.y + b.y) / 2)
            scenes.append(replace(first, things=(middle,)))
            sizes.append(grid)
            ways.append(WAYS.index(motion.direction) + 1)
    found = picture_labels(scenes, sizes, tokens)
    way = torch.tensor(ways, dtype=torch.long)[:, None]
    found[..., 3] = torch.where(found[..., 0] > 0, way, found[..., 0])
    return found


def _grid(scene: Scene, rows: int, columns: int) -> NDArray[np.int64]:
    """[rows, columns, 3]."""
    x = (np.arange(columns) + 0.5)[None] / columns
    y = (np.arange(rows) + 0.5)[:, None] / rows
    found = np.zeros((rows, columns, 3), np.int64)
    nearest = np.full((rows, columns), np.inf)
    for thing in scene.things:
        reach = thing.radius * min(scene.width, scene.height)
        far = np.hypot((x - thing.x) * scene.width, (y - thing.y) * scene.height) / reach
        middle = (
            min(rows - 1, max(0, int(thing.y * rows))),
            min(columns - 1, max(0, int(thing.x * columns))),
        )
        far[middle] = 0.0
        mine = far < nearest
        found[mine & (far < _BEYOND)] = UNSURE
        found[mine & (far < _WITHIN)] = _classes(thing)
        nearest = np.minimum(nearest, far)
    return found


def sound_labels(heard: Heard, marks: NDArray[np.int64], num: int, row: int) -> torch.Tensor:
    """int64 [num, HEARD] of as many rows of `row` samples. `marks`: of each sample, its tone."""
    padded = np.zeros(max(num * row, len(marks)), np.int64)
    padded[: len(marks)] = marks
    tones = padded[: num * row].reshape(num, row).max(1, initial=0)
    pitch = PITCHES.index(heard.pitch) + 1 if heard.pitch else 0
    parts = [
        np.where(tones > 0, pitch, 0),
        np.maximum.accumulate(tones),
        np.full(num, tones.max(initial=0)),
    ]
    return torch.from_numpy(np.stack(parts, 1))


def _classes(thing: Thing) -> tuple[int, int, int]:
    return SHAPES.index(thing.shape) + 1, COLOURS.index(thing.colour) + 1, thing.cell + 1
