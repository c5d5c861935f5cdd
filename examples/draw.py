"""Draws the media of these examples, which are the page's samples too: `python examples/draw.py`.

Flat shapes, one that moves, and beeps: what the embedded model is made for. Any other model that
sees and hears can be asked about them as well.
"""

from __future__ import annotations

import io
import math
import wave
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw

HERE = Path(__file__).parent
PAGE = HERE.parent / "epd" / "gateway" / "page" / "static" / "samples"

SIDE = 224
FINER = 4
"""Drawn so much larger and scaled down, so that edges are smooth."""

COLOURS = {
    "red": (214, 48, 49),
    "green": (46, 160, 67),
    "blue": (9, 105, 218),
    "yellow": (240, 200, 40),
    "purple": (130, 80, 200),
    "orange": (245, 130, 30),
    "black": (25, 25, 28),
}
RATE = 16000


def corners(shape: str, x: float, y: float, radius: float) -> list[tuple[float, float]]:
    """Of a square, a triangle or a star around a point."""
    turns = {"square": 4, "triangle": 3, "star": 10}[shape]
    first = math.pi / 4 if shape == "square" else -math.pi / 2
    found = []
    for corner in range(turns):
        angle = first + 2 * math.pi * corner / turns
        reach = radius * (0.45 if shape == "star" and corner % 2 else 1)
        found.append((x + reach * math.cos(angle), y + reach * math.sin(angle)))
    return found


def picture(*shapes: tuple[str, str, float, float, float]) -> Image.Image:
    """(shape, colour, x, y, radius) of each, in parts of the side."""
    big = SIDE * FINER
    canvas = Image.new("RGB", (big, big), (250, 250, 248))
    pen = ImageDraw.Draw(canvas)
    for shape, colour, x, y, radius in shapes:
        x, y, radius = x * big, y * big, radius * big
        if shape == "circle":
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=COLOURS[colour])
        else:
            pen.polygon(corners(shape, x, y, radius), fill=COLOURS[colour])
    return canvas.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def png(image: Image.Image) -> bytes:
    """A file of it."""
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


WAYS = {"right": (1, 0), "left": (-1, 0), "up": (0, -1), "down": (0, 1)}


def clip(shape: str, colour: str, way: str, *, num_frames: int = 16, fps: int = 8) -> bytes:
    """An mp4 of a shape that moves this way through the middle."""
    across, down = WAYS[way]
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=fps, options={"preset": "slow", "crf": "22"})
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        for index in range(num_frames):
            gone = 0.6 * index / (num_frames - 1) - 0.3
            x, y = 0.5 + across * gone, 0.5 + down * gone
            pixels = np.asarray(picture((shape, colour, x, y, 0.17)))
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


def beeps(num: int, *, pitch: float, seconds: float = 0.15, gap: float = 0.25) -> bytes:
    """A wav of so many beeps."""
    length = int(RATE * seconds)
    time = np.arange(length) / RATE
    edge = np.minimum(1, np.minimum(time, seconds - time) / 0.01)
    beep = 0.5 * edge * np.sin(2 * np.pi * pitch * time)
    rest = np.zeros(int(RATE * gap))
    sound = np.concatenate([rest, *([np.concatenate([beep, rest])] * num)])
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, RATE, 0, "NONE", ""))
        out.writeframes((sound * 32767).astype("<i2").tobytes())
    return file.getvalue()


def files() -> dict[str, bytes]:
    """All of them by name."""
    return {
        "circle.png": png(picture(("circle", "red", 0.5, 0.48, 0.26))),
        "square.png": png(picture(("square", "blue", 0.5, 0.5, 0.3))),
        "shapes.png": png(
            picture(("triangle", "green", 0.19, 0.21, 0.15), ("square", "purple", 0.81, 0.81, 0.16))
        ),
        "moving.mp4": clip("circle", "red", "right"),
        "beeps.wav": beeps(3, pitch=1500),
    }


def main() -> None:
    """Write them for the examples and for the page."""
    for folder in (HERE, PAGE):
        folder.mkdir(exist_ok=True)
        for name, data in files().items():
            (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
