"""From a file's bytes to upright RGB, or to a reason."""

from __future__ import annotations

import io
import random
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from epd.config.media import ImageLimits
from epd.errors import BadMedia, TooLarge
from epd.media.image import FORMATS, load_image

CONFIG = ImageLimits()
RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def saved(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    """The picture as a file."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def noise(size: tuple[int, int] = (64, 48)) -> Image.Image:
    """A picture that does not compress to nothing."""
    pixels = random.Random(1).randbytes(size[0] * size[1] * 3)
    return Image.frombytes("RGB", size, pixels)


def refusal(data: bytes, config: ImageLimits = CONFIG) -> str:
    """The reason."""
    with pytest.raises(BadMedia) as caught:
        load_image(data, config)
    return caught.value.message


@pytest.mark.parametrize("format", ["PNG", "BMP"])
def test_lossless_formats_come_back_exactly(format: str) -> None:
    """Pixel for pixel."""
    image = noise()
    loaded = load_image(saved(image, format), CONFIG)
    assert loaded.mode == "RGB"
    assert loaded.tobytes() == image.tobytes()


@pytest.mark.parametrize("format", FORMATS)
def test_every_allowed_format_is_read(format: str) -> None:
    """Size and mode are those of the picture."""
    loaded = load_image(saved(noise(), format), CONFIG)
    assert (loaded.mode, loaded.size) == ("RGB", (64, 48))


@pytest.mark.parametrize("format", ["TIFF", "ICO", "PPM", "TGA", "PCX", "EPS", "PDF"])
def test_other_formats_are_refused_by_name_of_the_allowed(format: str) -> None:
    """Each decoder that strangers can reach is a risk."""
    assert refusal(saved(noise(), format)) == "not a readable PNG, JPEG, WEBP, GIF or BMP file"


def test_the_first_frame_of_an_animation_counts() -> None:
    """GIF, WEBP and PNG may hold more."""
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, BLUE)]
    for format in ("GIF", "WEBP", "PNG"):
        data = saved(frames[0], format, save_all=True, append_images=frames[1:])
        red, _, blue = load_image(data, CONFIG).getpixel((4, 4))  # type: ignore[misc]
        assert red > 200 > 50 > blue, format


def test_no_bytes_and_text_are_no_pictures() -> None:
    """The name of the file says nothing."""
    assert refusal(b"") == "0 bytes"
    text = b"This is a text file called picture.png.\n" * 10
    assert refusal(text) == "not a readable PNG, JPEG, WEBP, GIF or BMP file"


def test_a_truncated_jpeg_is_refused_wherever_it_is_cut() -> None:
    """Even when only the end marker is missing."""
    data = saved(noise(), "JPEG")
    for end in (len(data) // 2, len(data) - 40, len(data) - 1):
        assert refusal(data[:end]) == "truncated JPEG"


@pytest.mark.parametrize("format", FORMATS)
def test_half_a_file_is_no_picture(format: str) -> None:
    """Each format says so in a few words."""
    data = saved(noise(), format)
    assert "truncated" in refusal(data[: len(data) // 2])


@given(st.data())
def test_damaged_files_give_a_picture_or_a_reason(data: st.DataObject) -> None:
    """Bytes changed anywhere: never another error, never a warning."""
    format = data.draw(st.sampled_from(FORMATS))
    file = bytearray(saved(noise((16, 12)), format))
    for _ in range(data.draw(st.integers(1, 4))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    try:
        loaded = load_image(bytes(file), ImageLimits(max_pixels=100_000))
    except BadMedia as error:
        assert 0 < len(error.message) < 120
    else:
        assert loaded.mode == "RGB"


def test_too_many_bytes_are_refused_before_anything_is_read() -> None:
    """The operator's limit on files holds for inline ones too."""
    with pytest.raises(TooLarge, match="larger than 10 bytes"):
        load_image(b"x" * 11, ImageLimits(max_bytes=10))


def png(width: int, height: int, pixels: bytes, *, depth: int = 8, trns: bytes = b"") -> bytes:
    """An RGB PNG written by hand: it may lie about its size, and have what Pillow never writes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0))]
    if trns:
        parts.append(chunk(b"tRNS", trns))
    parts += [chunk(b"IDAT", zlib.compress(pixels)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("side", [10_000, 30_000, 2_000_000])
def test_a_bomb_is_refused_by_its_header(side: int) -> None:
    """Also where Pillow's own limits would warn or raise."""
    assert refusal(png(side, side, bytes(100))) == (
        f"{side}x{side} pixels, more than the limit of 64000000"
    )


def test_the_pixel_limit_is_the_operators() -> None:
    """Exactly at it is allowed."""
    data = saved(noise((10, 10)))
    assert load_image(data, ImageLimits(max_pixels=100)).size == (10, 10)
    assert "10x10 pixels" in refusal(data, ImageLimits(max_pixels=99))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(orientation: int) -> None:
    """Each of the eight EXIF orientations gives the picture that a viewer shows."""
    upright = Image.new("RGB", (4, 2), WHITE)
    upright.putpixel((0, 0), RED)
    upright.putpixel((3, 0), BLUE)
    to_stored = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = upright if to_stored is None else upright.transpose(to_stored)
    exif = Image.Exif()
    exif[0x0112] = orientation
    loaded = load_image(saved(stored, exif=exif), CONFIG)
    assert loaded.size == (4, 2)
    assert loaded.tobytes() == upright.tobytes()


def test_unreadable_metadata_does_not_refuse_the_picture() -> None:
    """Phones and editors write broken EXIF; viewers show the picture."""
    data = saved(noise(), "PNG", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\xffbroken")
    assert load_image(data, CONFIG).size == (64, 48)


def test_transparent_parts_become_white() -> None:
    """RGBA, grey with alpha, and a palette with a transparent entry, in part or fully."""
    rgba = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    rgba.putpixel((1, 0), (255, 0, 0, 0))
    half = Image.new("RGBA", (1, 1), (0, 0, 0, 128))
    grey = Image.new("LA", (1, 1), (0, 0))
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    assert load_image(saved(rgba), CONFIG).getpixel((0, 0)) == RED
    assert load_image(saved(rgba), CONFIG).getpixel((1, 0)) == WHITE
    assert load_image(saved(half), CONFIG).getpixel((0, 0)) == (127, 127, 127)
    assert load_image(saved(grey), CONFIG).getpixel((0, 0)) == WHITE
    loaded = load_image(saved(palette, transparency=1), CONFIG)
    assert [loaded.getpixel((x, 0)) for x in (0, 1)] == [RED, WHITE]
    loaded = load_image(saved(palette, transparency=b"\xff\x00"), CONFIG)
    assert [loaded.getpixel((x, 0)) for x in (0, 1)] == [RED, WHITE]


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "RGBA", "LA", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    """White stays white, black stays black."""
    for value, expected in ((0, (0, 0, 0)), (255, WHITE)):
        if mode == "I;16":
            image = Image.new(mode, (4, 4), value * 257)
        else:
            image = Image.new("RGB", (4, 4), (value,) * 3).convert(mode)
        format = "JPEG" if mode == "CMYK" else "PNG"
        loaded = load_image(saved(image, format), CONFIG)
        assert loaded.mode == "RGB"
        assert loaded.getpixel((0, 0)) == expected


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    """A plain conversion would turn all but the darkest greys white."""
    image = Image.new("I;16", (1, 1), 128 * 257)
    assert load_image(saved(image), CONFIG).getpixel((0, 0)) == (128, 128, 128)


def test_sixteen_bit_colour_with_a_transparent_colour_is_read() -> None:
    """Two pixels: one opaque, one of the colour that is declared transparent."""
    pixels = b"\0" + struct.pack(">6H", 65535, 0, 0, 0, 65535, 0)
    data = png(2, 1, pixels, depth=16, trns=struct.pack(">3H", 0, 65535, 0))
    assert load_image(data, CONFIG).getpixel((0, 0)) == RED


def test_a_phones_multi_picture_jpeg_is_read() -> None:
    """MPO: a JPEG with further pictures behind it."""
    data = saved(noise(), "MPO", save_all=True, append_images=[noise()])
    assert load_image(data, CONFIG).size == (64, 48)
