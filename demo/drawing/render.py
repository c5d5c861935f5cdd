"""Scenes to the pixels that the model's processors would hand on, drawn in one of many ways."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from demo.drawing import filled, smooth, worn
from demo.facts import Scene
from demo.sizes import FRAME_TOKENS, IMAGE_TOKENS, TOKEN, grid

Bytes = NDArray[np.uint8]

_LARGEST = 384


def picture(scene: Scene, rng: random.Random) -> Bytes:
    """[rows * 28, columns * 28, 3] of one picture for training."""
    rows, columns = grid(scene.width, scene.height, IMAGE_TOKENS)
    if rng.random() < 0.65:
        return _directly(scene, columns * TOKEN, rows * TOKEN, rng)
    largest = _LARGEST if rng.random() < 0.85 else 1024
    return resized(drawn(_shrunk(scene, largest), rng), rows, columns)


def _shrunk(scene: Scene, largest: int) -> Scene:
    """The same scene, its longer side at most `largest`: large pictures take long to draw."""
    scale = min(1.0, largest / max(scene.width, scene.height))
    return replace(scene, width=round(scene.width * scale), height=round(scene.height * scale))


def drawn(scene: Scene, rng: random.Random) -> Image.Image:
    """A picture of the scene's own size, by any of the renderers."""
    lot = rng.random()
    if lot < 0.4 or scene.width * scene.height > 500_000:
        border = rng.choice(((0, 0, 0), (40, 40, 40))) if rng.random() < 0.12 else None
        found = filled.draw(scene, border=border)
    elif lot < 0.7:
        found = filled.draw(scene, times=2)
    else:
        found = Image.fromarray(_bytes(smooth.draw(scene, scene.width, scene.height)))
    if scene.ground.grain:
        found = Image.fromarray(
            _bytes(worn.noisy(np.asarray(found, np.float32), scene.ground.grain, rng))
        )
    return worn.photographed(found, rng) if rng.random() < 0.4 else found


def frames(scenes: tuple[Scene, ...], rng: random.Random) -> Bytes:
    """[frames, rows * 28, columns * 28, 3] of one clip, all drawn in the same way."""
    rows, columns = grid(scenes[0].width, scenes[0].height, FRAME_TOKENS)
    if rng.random() < 0.6:
        return np.stack([_directly(scene, columns * TOKEN, rows * TOKEN, rng) for scene in scenes])
    quality = rng.randint(40, 90) if rng.random() < 0.5 else None
    found = [filled.draw(scene) for scene in scenes]
    if quality is not None:  # as video codecs do
        found = [worn.compressed(frame, quality) for frame in found]
    return np.stack([resized(frame, rows, columns) for frame in found])


def resized(picture: Image.Image, rows: int, columns: int) -> Bytes:
    """By the processors' own filter."""
    size = (columns * TOKEN, rows * TOKEN)
    return np.asarray(picture.resize(size, Image.Resampling.BICUBIC), np.uint8)


def _directly(scene: Scene, width: int, height: int, rng: random.Random) -> Bytes:
    found = smooth.draw(scene, width, height, soft=rng.uniform(1, 4) if rng.random() < 0.2 else 1)
    if rng.random() < 0.2:
        found = found * worn.light(width, height, rng)
    if rng.random() < 0.5:
        found = worn.noisy(found, max(scene.ground.grain * 0.7, rng.uniform(0, 9)), rng)
    return _bytes(found)


def _bytes(pixels: NDArray[np.float32]) -> Bytes:
    found: Bytes = np.clip(pixels + 0.5, 0, 255).astype(np.uint8)
    return found
