"""Renderers that training never uses: Matplotlib, OpenCV, and imitated photographs of shapes."""

from __future__ import annotations

import io
import math
import random
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from demo.drawing.outlines import corners
from demo.drawing.worn import compressed
from demo.facts import Scene

_FINE = 4  # bits of a pixel's fraction, in OpenCV's coordinates


def plotted(scene: Scene, rng: random.Random) -> Image.Image:
    """Matplotlib's patches on a page without axes, as a PNG or JPEG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Polygon

    dots = 100
    figure = Figure(figsize=(scene.width / dots, scene.height / dots), dpi=dots)
    figure.patch.set_facecolor(_unit(scene.ground.rgb))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, scene.width)
    axes.set_ylim(scene.height, 0)
    axes.axis("off")
    for thing in scene.things:
        edge = "black" if rng.random() < 0.2 else "none"
        axes.add_patch(Polygon(corners(thing, scene), facecolor=_unit(thing.rgb), edgecolor=edge))
    FigureCanvasAgg(figure)
    file = io.BytesIO()
    figure.savefig(file, format="png", facecolor=figure.get_facecolor())
    return Image.open(file).convert("RGB")


def _unit(rgb: tuple[int, int, int]) -> tuple[float, float, float]:
    return rgb[0] / 255, rgb[1] / 255, rgb[2] / 255


def vector(scene: Scene, rng: random.Random) -> Image.Image:
    """OpenCV's smooth polygons at fractions of pixels, as a browser draws an SVG."""
    return Image.fromarray(_filled(scene))


def _filled(scene: Scene) -> NDArray[np.uint8]:
    page: NDArray[np.uint8] = np.full((scene.height, scene.width, 3), scene.ground.rgb, np.uint8)
    for thing in scene.things:
        outline = np.round(corners(thing, scene) * (1 << _FINE)).astype(np.int32)
        cv2.fillPoly(page, [outline], thing.rgb, lineType=cv2.LINE_AA, shift=_FINE)
    return page


def photograph(scene: Scene, rng: random.Random) -> Image.Image:
    """A page seen a little from the side, in uneven light, out of focus, with noise, as a JPEG."""
    page: Any = _filled(scene)
    height, width = page.shape[:2]
    short = min(width, height)
    page = cv2.warpPerspective(
        page, _sideways(width, height, rng), (width, height), borderMode=cv2.BORDER_REPLICATE
    )
    spread = max(0.3, rng.uniform(0.001, 0.009) * short)
    page = cv2.GaussianBlur(page, (0, 0), spread).astype(np.float32)
    page *= _spot(width, height, rng)[..., None]
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(2, 9), page.shape)
    picture = Image.fromarray(np.clip(page + noise, 0, 255).astype(np.uint8))
    return compressed(picture, rng.randint(45, 90))


def _sideways(width: int, height: int, rng: random.Random) -> Any:
    ends = np.asarray([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    moved = ends + np.asarray(
        [[rng.uniform(-0.03, 0.03) * width, rng.uniform(-0.03, 0.03) * height] for _ in range(4)]
    )
    return cv2.getPerspectiveTransform(ends, moved.astype(np.float32))


def _spot(width: int, height: int, rng: random.Random) -> NDArray[np.float32]:
    """[height, width]: brightest somewhere, darker around."""
    x = np.linspace(0, 1, width, dtype=np.float32)[None] - rng.random()
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None] - rng.random()
    found: NDArray[np.float32] = 1.08 - rng.uniform(0.05, 0.3) * np.sqrt(x * x + y * y) / math.sqrt(
        2
    )
    return found
