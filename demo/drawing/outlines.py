"""The corners of shapes, in pixels."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from demo.facts import Scene, Thing

CORNERS = {"circle": 72, "square": 4, "triangle": 3, "star": 10}
FIRST = {"circle": 0.0, "square": math.pi / 4, "triangle": -math.pi / 2, "star": -math.pi / 2}
"""Where the first corner is: a square lies flat, a triangle and a star stand."""


def corners(thing: Thing, scene: Scene) -> NDArray[np.float64]:
    """[corners, 2] of x and y in a picture of the scene's own size."""
    num = CORNERS[thing.shape]
    angles = thing.turn + FIRST[thing.shape] + np.arange(num) * (2 * math.pi / num)
    far = np.full(num, thing.radius * min(scene.width, scene.height))
    if thing.shape == "star":
        far[1::2] *= thing.inner
    x = thing.x * scene.width + np.cos(angles) * far * thing.stretch
    y = thing.y * scene.height + np.sin(angles) * far
    return np.stack([x, y], axis=1)
