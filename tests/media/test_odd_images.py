"""Pictures as people make them, the odd ones: right."""

from __future__ import annotations

import random
import struct
import zlib

import pytest
from PIL import Image, ImageCms

from epd.config import MediaConfig
from epd.config.media import ImageLimits
from epd.media.image import FORMATS, ImageIO, load_image
from tests.media.pictures import (
    BLUE,
    GREY,
    LIMITS,
    RED,
    WHITE,
    chunk,
    loaded,
    noise,
    saved,
)


def decoding(limits: ImageLimits) -> str:
    """What content keys are told."""
    return ImageIO(MediaConfig(image=limits)).decoding


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("size", [(1, 1), (10_000, 1), (1, 10_000), (3, 7), (17, 31)])
def test_every_size_is_read(format: str, size: tuple[int, int]) -> None:
    """Whether a model can do anything with it is the model's to say."""
    assert loaded(saved(Image.new("RGB", size, RED), format)).size == size


def near(image: Image.Image, other: Image.Image) -> bool:
    """Equal but for what a lossy format costs."""
    pairs = zip(image.tobytes(), other.tobytes(), strict=True)
    return sum(abs(a - b) for a, b in pairs) / (3 * image.width * image.height) < 3


@pytest.mark.parametrize(
    "options",
    [
        {"progressive": True},
        {"subsampling": "4:4:4"},
        {"subsampling": "4:2:0"},
        {"subsampling": "4:1:1"},
        {"optimize": True},
        {"restart_marker_blocks": 1},
        {"comment": b"hello"},
        {"keep_rgb": True},
    ],
    ids=str,
)
def test_every_kind_of_jpeg_is_read(options: dict[str, object]) -> None:
    """Smooth pictures come back nearly as they were."""
    image = Image.linear_gradient("L").resize((40, 24)).convert("RGB")
    assert near(loaded(saved(image, "JPEG", quality=95, **options)), image)
    grey = image.convert("L")
    assert near(loaded(saved(grey, "JPEG", quality=95)), image)


def test_cmyk_is_converted() -> None:
    """With and without the marker by which Adobe's programs invert it."""
    data = saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100)
    red, green, blue = loaded(data).getpixel((4, 4))  # type: ignore[misc]
    assert red > 245 and green < 10 and blue < 10


def test_a_profile_does_not_change_pixels() -> None:
    """As in Hugging Face's loading. A large one, in many segments, is no attack."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = noise()
    assert loaded(saved(image, icc_profile=profile)).tobytes() == image.tobytes()
    big = random.Random(2).randbytes(5_000_000)
    assert near(
        loaded(saved(Image.new("RGB", (8, 8), GREY), "JPEG", icc_profile=big)),
        Image.new("RGB", (8, 8), GREY),
    )


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_orientation_is_obeyed_in_every_format_that_has_it(format: str) -> None:
    """One that is none is as if it was not there."""
    stored = Image.new("RGB", (16, 32), BLUE)
    stored.paste(RED, (0, 0, 16, 16))
    at_the_left_top = {0: RED, 3: BLUE, 6: BLUE, 8: RED, 99: RED}
    for orientation, color in at_the_left_top.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        upright = loaded(saved(stored, format, exif=exif))
        assert upright.size == ((32, 16) if orientation in (6, 8) else (16, 32))
        red, _, blue = upright.getpixel((2, 2))  # type: ignore[misc]
        assert (RED if red > blue else BLUE) == color, orientation


def test_transparent_parts_take_the_operators_colour() -> None:
    """Every way to be transparent; the colour is part of what the content key is made of."""
    config = ImageLimits(background=(0, 0, 255))
    clear = {
        "rgba": saved(Image.new("RGBA", (2, 2), (255, 0, 0, 0))),
        "grey and alpha": saved(Image.new("LA", (2, 2), (255, 0))),
        "palette": saved(Image.new("P", (2, 2), 0), transparency=0),
        "one grey": saved(Image.new("L", (2, 2), 7), transparency=7),
        "one grey of 16 bits": saved(Image.new("I;16", (2, 2), 777), transparency=777),
        "one colour": saved(Image.new("RGB", (2, 2), RED), transparency=RED),
        "black and white": saved(Image.new("1", (2, 2), 1), transparency=255),
        "webp": saved(Image.new("RGBA", (2, 2), (255, 0, 0, 0)), "WEBP", lossless=True),
        "gif": saved(Image.new("P", (2, 2), 0), "GIF", transparency=0),
    }
    for kind, data in clear.items():
        assert load_image(data, config).getpixel((0, 0)) == BLUE, kind
        assert load_image(data, LIMITS).getpixel((0, 0)) == WHITE, kind
    opaque = saved(Image.new("I;16", (1, 1), 257), transparency=777)
    assert load_image(opaque, config).getpixel((0, 0)) == (1, 1, 1)
    assert decoding(config) != decoding(LIMITS) == decoding(ImageLimits(max_pixels=5))


def test_sixteen_bit_colour_and_alpha_are_read() -> None:
    """Which Pillow does not write."""
    rows = b"\0" + struct.pack(">8H", 65535, 0, 0, 65535, 0, 0, 65535, 0)
    data = b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 6, 0, 0, 0)),
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        ]
    )
    assert [loaded(data).getpixel((x, 0)) for x in (0, 1)] == [RED, WHITE]


def test_the_first_frame_of_a_gif_lies_where_it_belongs() -> None:
    """A frame smaller than its canvas; around it is nothing."""
    canvas = b"GIF89a" + struct.pack("<HHBBB", 4, 4, 0x80, 0, 0) + bytes([255, 0, 0, 0, 0, 255])
    clear = b"\x21\xf9\x04\x01\0\0\x01\0"
    frame = b"\x2c" + struct.pack("<HHHHB", 1, 1, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    image = loaded(canvas + clear + frame + b";")
    assert image.size == (4, 4)
    assert image.getpixel((1, 1)) == RED
    assert image.getpixel((0, 0)) == WHITE


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_every_kind_of_bmp_is_read(mode: str) -> None:
    """From the bottom up, and from the top down."""
    image = noise((5, 3)).convert(mode)
    data = saved(image, "BMP")
    expected = image.convert("RGB").tobytes() if mode != "RGBA" else None
    upwards = loaded(data)
    if expected is not None:
        assert upwards.tobytes() == expected
    height = struct.unpack_from("<i", data, 22)[0]
    downwards = loaded(data[:22] + struct.pack("<i", -height) + data[26:])
    assert downwards.tobytes() == upwards.transpose(Image.Transpose.FLIP_TOP_BOTTOM).tobytes()
