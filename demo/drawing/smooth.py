"""The fastest renderer: smooth edges from distances, drawn at any size, as if scaled perfectly."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demo.drawing.outlines import CORNERS, FIRST
from demo.facts import Ground, Scene, Thing

Pixels = NDArray[np.float32]


def draw(scene: Scene, width: int, height: int, soft: float = 1.0) -> Pixels:
    """[height, width, 3] of 0 to 255. Edges are `soft` pixels wide."""
    picture = ground(scene.ground, width, height)
    for thing in scene.things:
        _paint(picture, thing, scene, soft)
    return picture


def ground(kind: Ground, width: int, height: int) -> Pixels:
    first, last = (np.asarray(rgb, np.float32) for rgb in (kind.rgb, kind.other))
    picture = np.empty((height, width, 3), np.float32)
    if kind.rgb == kind.other:
        picture[:] = first
    else:
        x = np.linspace(-1, 1, width, dtype=np.float32)[None]
        y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        along = (x * np.float32(math.cos(kind.angle)) + y * np.float32(math.sin(kind.angle))) / 2.83
        picture[:] = first + (last - first) * (along + 0.5)[..., None]
    return picture


def _paint(picture: Pixels, thing: Thing, scene: Scene, soft: float) -> None:
    """Touches the bounding box only."""
    height, width, _ = picture.shape
    scale = width / scene.width, height / scene.height
    radius = thing.radius * min(scene.width, scene.height)  # in the scene's pixels, as x and y are
    box = _box(thing, radius, scale, width, height)
    if box is None:
        return
    left, right, top, bottom = box
    x = ((np.arange(left, right, dtype=np.float32) + 0.5) / scale[0] - thing.x * scene.width)[None]
    y = (np.arange(top, bottom, dtype=np.float32) + 0.5) / scale[1] - thing.y * scene.height
    x, y = x / np.float32(thing.stretch), y[:, None]
    far = np.sqrt(x * x + y * y)
    pixel = soft / math.sqrt(scale[0] * scale[1])
    alpha = np.clip((_edge(thing, radius, x, y) - far) / pixel + 0.5, 0, 1)[..., None]
    part = picture[top:bottom, left:right]
    part += (np.asarray(thing.rgb, np.float32) - part) * alpha.astype(np.float32)


def _box(
    thing: Thing, radius: float, scale: tuple[float, float], width: int, height: int
) -> tuple[int, int, int, int] | None:
    x, y = thing.x * width, thing.y * height
    far_x, far_y = radius * scale[0] * thing.stretch, radius * scale[1]
    left, right = max(0, int(x - far_x - 1)), min(width, int(x + far_x + 2))
    top, bottom = max(0, int(y - far_y - 1)), min(height, int(y + far_y + 2))
    return None if left >= right or top >= bottom else (left, right, top, bottom)


def _edge(thing: Thing, radius: float, x: Pixels, y: Pixels) -> Pixels | float:
    """How far from the centre the shape ends, in each direction."""
    if thing.shape == "circle":
        return radius
    sides = CORNERS[thing.shape] // (2 if thing.shape == "star" else 1)
    half = math.pi / sides
    inner = radius * (thing.inner if thing.shape == "star" else math.cos(half))
    angle = np.mod(np.arctan2(y, x) - np.float32(thing.turn + FIRST[thing.shape]), 2 * half)
    angle = np.minimum(angle, 2 * half - angle)
    below = radius * np.sin(angle) + inner * np.sin(half - angle)
    found: Any = radius * inner * math.sin(half) / np.maximum(below, 1e-3)
    reach: Pixels = np.asarray(found, np.float32)
    return reach
