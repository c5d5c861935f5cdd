"""Pictures, videos and sounds that code makes: the same description gives the same bytes.

Descriptions are values, so that a data set is pure and a repeated item is the same one; `part`
makes the piece of a chat that a client sends. Every item is sent inside its request, in base64.
"""

from __future__ import annotations

import base64
import io
import wave
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

GRAIN = 8
"""Smooth pictures and videos are this many random fields wide and high."""

JPEG_QUALITY = 85
RESOLUTIONS = {"4k": (3840, 2160), "1080p": (1920, 1080), "720p": (1280, 720), "360p": (640, 360)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """`content`: random is noise in every pixel, smooth compresses as photographs do."""

    width: int
    height: int
    seed: str
    format: str = "jpeg"
    content: str = "random"

    kind = "image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A video without sound: a smooth picture that moves."""

    width: int
    height: int
    frames: int
    fps: float
    seed: str

    kind = "video"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """Noise that grows and fades, one channel."""

    seconds: float
    seed: str
    rate: int = 16_000

    kind = "audio"


Item = Picture | Clip | Sound
ITEM_KINDS = ("image", "video", "audio")


def part(item: Item) -> dict[str, Any]:
    """As OpenAI's chat API has it, and, for videos, vLLM's."""
    if isinstance(item, Sound):
        data = base64.b64encode(encoded(item)).decode("ascii")
        return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    name, mime = ("image_url", f"image/{item.format}") if isinstance(item, Picture) else _MP4
    data = base64.b64encode(encoded(item)).decode("ascii")
    return {"type": name, name: {"url": f"data:{mime};base64,{data}"}}


_MP4 = ("video_url", "video/mp4")


def encoded(item: Item) -> bytes:
    """The file."""
    if isinstance(item, Picture):
        return _picture(item)
    return _video(item) if isinstance(item, Clip) else _sound(item)


def _rng(item: Item) -> np.random.Generator:
    """For this very item: seeds are texts."""
    return np.random.default_rng(list(repr(item).encode()))


def _picture(item: Picture) -> bytes:
    buffer = io.BytesIO()
    options = {"quality": JPEG_QUALITY} if item.format == "jpeg" else {"compress_level": 1}
    Image.fromarray(_pixels(item)).save(buffer, item.format, **options)
    return buffer.getvalue()


def _pixels(item: Picture) -> NDArray[np.uint8]:
    """[height, width, 3]. A blank one has its seed's color, so that no two are alike."""
    rng = _rng(item)
    if item.content == "random":
        return rng.integers(0, 256, (item.height, item.width, 3), dtype=np.uint8)
    if item.content == "blank":
        return np.full((item.height, item.width, 3), rng.integers(0, 256, 3), dtype=np.uint8)
    return _smooth(rng, item.width, item.height)


def _smooth(rng: np.random.Generator, width: int, height: int) -> NDArray[np.uint8]:
    coarse = Image.fromarray(rng.integers(0, 256, (GRAIN, GRAIN, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def _video(item: Clip) -> bytes:
    """H.264 in MP4, whose sides are even."""
    buffer = io.BytesIO()
    scene = _smooth(_rng(item), 2 * item.width, item.height)
    with av.open(buffer, "w", format="mp4") as container:
        rate = Fraction(item.fps).limit_denominator(1000)
        stream = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = item.width, item.height, "yuv420p"
        for number in range(item.frames):
            left = number * item.width // item.frames
            view = np.ascontiguousarray(scene[:, left : left + item.width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(view, format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def _sound(item: Sound) -> bytes:
    """16-bit WAV."""
    num = max(1, round(item.seconds * item.rate))
    swell = np.sin(np.linspace(0, np.pi, num))
    samples = _rng(item).uniform(-0.3, 0.3, num) * swell * np.iinfo(np.int16).max
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(item.rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return buffer.getvalue()
