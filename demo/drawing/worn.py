"""What cameras and files do to a picture: uneven light, blur, noise, compression."""

from __future__ import annotations

import io
import random

import numpy as np
from PIL import Image, ImageFilter

from demo.drawing.smooth import Pixels

_NOISE = np.random.RandomState(0).standard_normal(1 << 21).astype(np.float32)


def noisy(picture: Pixels, strength: float, rng: random.Random) -> Pixels:
    """Adds noise of this deviation to [height, width, 3]."""
    start = rng.randrange(len(_NOISE))
    around = np.resize(_NOISE[start:], picture.size) if start + picture.size > len(_NOISE) else None
    lots = _NOISE[start : start + picture.size] if around is None else around
    worn: Pixels = picture + lots.reshape(picture.shape) * np.float32(strength)
    return worn


def photographed(picture: Image.Image, rng: random.Random) -> Image.Image:
    """As a photograph of it might look."""
    width, height = picture.size
    short = min(width, height)
    if rng.random() < 0.7:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.012) * short))
    pixels = np.asarray(picture, np.float32)
    if rng.random() < 0.6:
        pixels = pixels * light(width, height, rng)
    if rng.random() < 0.8:
        pixels = noisy(pixels, rng.uniform(1, 14), rng)
    picture = Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8))
    return compressed(picture, rng.randint(35, 92)) if rng.random() < 0.7 else picture


def light(width: int, height: int, rng: random.Random) -> Pixels:
    """[height, width, 3]: brighter on one side, a little warmer or colder."""
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None, None]
    slope = 1 + x * rng.uniform(-0.14, 0.14) + y * rng.uniform(-0.14, 0.14)
    tint = np.asarray([rng.uniform(0.94, 1.06) for _ in range(3)], np.float32)
    found: Pixels = (slope * tint * rng.uniform(0.88, 1.08)).astype(np.float32)
    return found


def compressed(picture: Image.Image, quality: int) -> Image.Image:
    """Through a JPEG file."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")
