"""Plain JPEGs take a short way to the same pixels, and everything else takes the long one."""

from __future__ import annotations

import io
import random
from typing import Any

import numpy as np
import pytest
from PIL import Image

from epd.config.media import ImageLimits
from epd.errors import BadRequest
from epd.media.image import load_image
from epd.media.jpeg import MOST_PIXELS, plain_jpeg, plain_size

LIMITS = ImageLimits()


def noise(width: int = 40, height: int = 24) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def jpeg(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def room(size: tuple[int, int]) -> Image.Image:
    """With something in it."""
    return Image.new("RGB", size, (1, 2, 3))


def outcome(data: bytes, *, short: bool) -> tuple[str, object]:
    """Pixels, or the reason why there are none."""
    try:
        image = load_image(data, LIMITS, room if short else None)
    except BadRequest as error:
        return type(error).__name__, error.message
    return "picture", (image.size, image.tobytes())


@pytest.mark.parametrize(
    "options",
    [{}, {"quality": 30}, {"subsampling": 0}, {"optimize": True}, {"restart_marker_rows": 1}]
    + [{"comment": b"of mine"}, {"dpi": (72, 72)}],
)
def test_plain_pictures_take_the_short_way_to_the_same_pixels(options: dict[str, Any]) -> None:
    data = jpeg(noise(), **options)
    found = plain_jpeg(data, LIMITS.max_pixels, room)
    assert found is not None
    assert found.tobytes() == Image.open(io.BytesIO(data)).tobytes()


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_colours_take_the_long_way(mode: str) -> None:
    assert plain_size(jpeg(noise().convert(mode))) is None


def test_what_could_turn_recolour_or_multiply_a_picture_takes_the_long_way() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for options in ({"exif": exif}, {"icc_profile": b"x" * 200}, {"xmp": b"<x/>"}):
        assert plain_size(jpeg(noise(), **options)) is None
    assert plain_size(jpeg(noise(), progressive=True)) is None
    assert load_image(jpeg(noise(), exif=exif), LIMITS, room).size == (24, 40)


def test_large_pictures_and_those_over_the_limit_take_the_long_way() -> None:
    data = jpeg(noise())
    assert plain_jpeg(data, 40 * 24 - 1, room) is None
    assert plain_jpeg(data, LIMITS.max_pixels, lambda size: None) is None
    wide = jpeg(Image.new("RGB", (MOST_PIXELS // 1024, 1025)))
    assert plain_size(wide) is not None
    assert plain_jpeg(wide, LIMITS.max_pixels, room) is None


def test_damage_has_the_same_outcome_on_both_ways() -> None:
    """Headers above all: there the two differ in what they read."""
    rng = random.Random(0)
    whole = jpeg(noise(16, 8))
    pixels = whole.index(b"\xff\xda")
    short = 0
    for step in range(3000):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(2, pixels + 20 if step % 3 else len(data))
            match rng.randrange(4):
                case 0:
                    data[at : at + 1] = b""
                case 1:
                    data[at:at] = bytes([rng.randrange(256)])
                case 2:
                    data[at] = rng.choice((0, 1, 2, 0x10, 0xFF))
                case _:
                    data[at] = rng.randrange(256)
        if step % 50 == 0:
            del data[rng.randrange(2, len(data)) :]
        short += plain_jpeg(bytes(data), LIMITS.max_pixels, room) is not None
        assert outcome(bytes(data), short=True) == outcome(bytes(data), short=False)
    assert short > 500
