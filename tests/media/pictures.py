"""Pictures and files of them, sound and otherwise."""

from __future__ import annotations

import io
import random
import struct
import zlib

import pytest
from PIL import Image

from epd.config.media import ImageLimits
from epd.errors import BadMedia
from epd.media.image import load_image

LIMITS = ImageLimits()
BLUE, GREY, RED, WHITE = (0, 0, 255), (119, 119, 119), (255, 0, 0), (255, 255, 255)


def saved(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    """The picture as a file."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def loaded(data: bytes) -> Image.Image:
    """What comes out is always RGB."""
    image = load_image(data, LIMITS)
    assert image.mode == "RGB"
    return image


def refusal(data: bytes) -> str:
    """The reason."""
    with pytest.raises(BadMedia) as caught:
        load_image(data, LIMITS)
    return caught.value.message


def chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk of a PNG."""
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def png_with(chunks: bytes, *, behind: bool = False) -> bytes:
    """A sound PNG with further chunks in front of its pixels or behind them."""
    data = saved(Image.new("RGB", (4, 4), RED))
    at = data.index(b"IEND" if behind else b"IDAT") - 4
    return data[:at] + chunks + data[at:]


def jpeg_with(segments: bytes) -> bytes:
    """A sound JPEG with further bytes at its begin."""
    data = saved(Image.new("RGB", (16, 16), GREY), "JPEG")
    return data[:2] + segments + data[2:]


def noise(size: tuple[int, int] = (23, 17)) -> Image.Image:
    """A picture that does not compress to nothing."""
    return Image.frombytes("RGB", size, random.Random(1).randbytes(size[0] * size[1] * 3))
