"""What each token of a picture shows: labels that only training needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from demo.facts import CELLS, COLOURS, SHAPES, Motion, Scene, Thing

SIZES = (len(SHAPES) + 1, len(COLOURS) + 1, len(CELLS) + 1)
"""Classes of shape, colour and cell; 0 is none."""

UNSURE = -1
_WITHIN = 0.7  # of the radius: a token whose middle is so near shows the shape
_BEYOND = 1.25  # of the radius: one that is farther away does not


def picture_labels(
    scenes: Sequence[Scene], grids: Sequence[tuple[int, int]], tokens: int
) -> torch.Tensor:
    """int64 [pictures, tokens, 3] of shape, colour and cell; UNSURE at edges and at padding."""
    found = np.full((len(scenes), tokens, 3), UNSURE, np.int64)
    for i, (scene, (rows, columns)) in enumerate(zip(scenes, grids, strict=True)):
        found[i, : rows * columns] = _grid(scene, rows, columns).reshape(-1, 3)
    return torch.from_numpy(found)


def cells(scene: Scene, rows: int, columns: int) -> list[int]:
    """Of each token one more than the cell of the thing that it shows, or 0."""
    found: list[int] = _grid(scene, rows, columns)[..., 2].clip(min=0).flatten().tolist()
    return found


def clip_labels(
    motions: Sequence[Motion], grids: Sequence[tuple[int, int]], tokens: int
) -> torch.Tensor:
    """As picture_labels, one grid for two frames, at the place between both."""
    scenes, sizes = [], []
    for motion, grid in zip(motions, grids, strict=True):
        for first, second in zip(motion.frames[::2], motion.frames[1::2], strict=True):
            a, b = first.things[0], second.things[0]
            middle = replace(a, x=(a.x + b.x) / 2, y=(a.y + b.y) / 2)
            scenes.append(replace(first, things=(middle,)))
            sizes.append(grid)
    return picture_labels(scenes, sizes, tokens)


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


def _classes(thing: Thing) -> tuple[int, int, int]:
    return SHAPES.index(thing.shape) + 1, COLOURS.index(thing.colour) + 1, thing.cell + 1
