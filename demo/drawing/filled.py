"""Pillow's polygons: with jagged edges, or smooth ones by drawing larger and shrinking."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from demo.drawing import smooth
from demo.drawing.outlines import corners
from demo.facts import Colour, Scene


def draw(scene: Scene, *, times: int = 1, border: Colour | None = None) -> Image.Image:
    """`times` larger and shrunk. A `border` goes round each shape."""
    width, height = scene.width * times, scene.height * times
    if scene.ground.rgb == scene.ground.other:
        picture = Image.new("RGB", (width, height), scene.ground.rgb)
    else:
        behind = smooth.ground(scene.ground, width, height)
        picture = Image.fromarray(behind.astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    line = max(1, round(min(width, height) / 110)) if border else 1
    for thing in scene.things:
        outline = [(x, y) for x, y in (corners(thing, scene) * times).tolist()]
        pen.polygon(outline, fill=thing.rgb, outline=border or thing.rgb, width=line)
    if times == 1:
        return picture
    return picture.resize((scene.width, scene.height), Image.Resampling.BOX)
