"""Pictures as attackers make them, and damaged ones: a BadMedia, never another error."""

from __future__ import annotations

import random
import struct
import zlib

import pytest
from PIL import Image, PngImagePlugin

from epd.config.media import ImageLimits
from epd.errors import BadMedia
from epd.media.headers import webp_size
from epd.media.image import FORMATS, load_image
from tests.media.pictures import (
    RED,
    chunk,
    jpeg_with,
    loaded,
    noise,
    png_with,
    refusal,
    saved,
)


def gif(canvas: tuple[int, int], frame: tuple[int, int]) -> bytes:
    """A GIF of one frame, whose size may differ from the canvas."""
    head = b"GIF89a" + struct.pack("<HHBBB", *canvas, 0x80, 0, 0) + bytes(6)
    return head + b"\x2c" + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\x02\x02\x44\x01\x00;"


@pytest.mark.parametrize(
    ("canvas", "frame"),
    [((65535, 65535), (1, 1)), ((1, 1), (65535, 65535)), ((65535, 1), (1, 65535))],
)
def test_a_gif_with_a_huge_canvas_or_frame_is_refused(
    canvas: tuple[int, int], frame: tuple[int, int]
) -> None:
    assert "65535x65535 pixels" in refusal(gif(canvas, frame))


WEBPS = [
    saved(noise(), "WEBP"),
    saved(noise(), "WEBP", lossless=True),
    saved(noise().convert("RGBA"), "WEBP"),
    saved(noise(), "WEBP", save_all=True, append_images=[noise().rotate(9)]),
    saved(noise(), "WEBP", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"),
]


def test_the_size_of_every_kind_of_webp_is_known_before_it_is_opened() -> None:
    """Lossy, lossless, with alpha, animated, with metadata."""
    for data in WEBPS:
        assert webp_size(data) == (23, 17)
    for data in (b"", b"RIFF", b"RIFF....WEBP", WEBPS[0][:29], saved(noise())):
        assert webp_size(data) is None


@pytest.mark.parametrize("index", [0, 1, 3])
def test_a_webp_with_a_huge_canvas_is_refused_before_it_is_opened(
    index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening makes room for it."""
    data = bytearray(WEBPS[index])
    match bytes(data[12:16]):
        case b"VP8X":
            data[24:30] = b"\xff\x3e\0\xff\x3e\0"
        case b"VP8L":
            data[21:25] = (0x3EFF | 0x3EFF << 14).to_bytes(4, "little")
        case _:
            data[26:30] = struct.pack("<HH", 0x3F00, 0x3F00)
    monkeypatch.setattr(Image, "open", None)
    assert "16128x16128 pixels" in refusal(bytes(data))


@pytest.mark.parametrize(
    "data",
    [
        gif((0, 0), (0, 0)),
        saved(Image.new("RGB", (1, 1)), "BMP").replace(struct.pack("<ii", 1, 1), bytes(8)),
        png_with(b"").replace(struct.pack(">II", 4, 4), bytes(8)),
    ],
    ids=["gif", "bmp", "png"],
)
def test_a_picture_without_pixels_is_refused(data: bytes) -> None:
    refusal(data)


def text(packed: bytes, kind: bytes = b"zTXt") -> bytes:
    """A compressed chunk of a PNG."""
    return chunk(kind, b"a\0\0" + packed)


BOMB = zlib.compress(bytes(64 << 20), 9)

BOMBS = {
    "png text": png_with(text(BOMB)),
    "png text behind": png_with(text(BOMB), behind=True),
    "png texts": png_with(text(zlib.compress(bytes(1 << 20), 9)) * 200),
    "png international text": png_with(chunk(b"iTXt", b"a\0\1\0\0\0" + BOMB)),
    "png profile": png_with(text(BOMB, b"iCCP")),
    "png chunks": png_with(chunk(b"tEXt", b"a\0b") * 9000),
    "png chunks behind": png_with(chunk(b"prVt", b"") * 9000, behind=True),
    "png pixels in crumbs": png_with(chunk(b"IDAT", b"") * 270_000),
    "jpeg segments": jpeg_with(b"\xff\xe5\0\2" * 5000),
    "jpeg junk": jpeg_with(b"junk" * 2000),
    "jpeg fill": jpeg_with(b"\xff" * 8000),
    "jpeg scans": saved(noise(), "JPEG")[:-2] + b"\xff\xda\0\x08\1\1\0\0\x3f\0" * 300,
    "jpeg scans behind a comment": saved(noise(), "JPEG")[:-2]
    + b"\xff\xfe\0\6\xff\xd9\xff\xd9"
    + b"\xff\xda\0\x08\1\1\0\0\x3f\0" * 300,
    "gif comments": b"GIF89a\1\0\1\0\0\0\0" + b"\x21\xfe" + (b"\xff" + bytes(255)) * 9000,
    "gif extensions": b"GIF89a\1\0\1\0\0\0\0" + b"\x21\xfe\0" * 9000 + gif((1, 1), (1, 1))[19:],
    "gif junk": b"GIF89a\1\0\1\0\0\0\0" + b"\x55" * 9000,
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_small_file_that_costs_much_is_refused(kind: str) -> None:
    """Not even its metadata is unpacked."""
    refusal(BOMBS[kind])


def test_what_lies_behind_a_jpeg_is_not_judged() -> None:
    """Phones append videos and further pictures, whose bytes may look like anything."""
    data = saved(noise(), "JPEG", progressive=True, restart_marker_blocks=1)
    behind = b"\xff\xda\xff\xe0\0\2" * 10_000
    assert loaded(data + behind).tobytes() == loaded(data).tobytes()


def test_metadata_of_a_usual_size_is_no_attack() -> None:
    """The control: texts, comments and thumbnails as programs write them."""
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", "x" * 200_000)
    info.add_text("prompt", "x" * 200_000, zip=True)
    assert loaded(saved(noise(), pnginfo=info)).tobytes() == noise().tobytes()
    assert loaded(png_with(chunk(b"tEXt", b"a\0b") * 1000)).getpixel((0, 0)) == RED
    assert loaded(jpeg_with(b"\xff\xe5\0\2" * 1000)).size == (16, 16)
    assert loaded(saved(noise(), "GIF", comment=b"x" * 100_000)).size == (23, 17)


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_cut_anywhere_gives_a_picture_or_a_reason(format: str) -> None:
    """Never another error."""
    data = saved(noise((9, 5)), format)
    for end in range(len(data)):
        tried(data[:end])
    assert tried(data)


def tried(data: bytes) -> bool:
    """Whether it was read."""
    try:
        image = load_image(data, ImageLimits(max_pixels=200_000))
    except BadMedia as error:
        assert 0 < len(error.message) < 120
        return False
    assert image.mode == "RGB"
    return True


def test_many_random_mutations_give_a_picture_or_a_reason() -> None:
    """Of files with everything in them; some survive, which is the control."""
    exif = Image.Exif()
    exif[0x0112] = 6
    alpha = noise().convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(alpha.size))
    files = [
        saved(alpha, exif=exif, icc_profile=b"profile"),
        saved(noise().quantize(16), transparency=3),
        saved(Image.new("I;16", (9, 9), 777), transparency=777),
        saved(noise(), "JPEG", exif=exif, progressive=True, comment=b"hello"),
        saved(noise().convert("CMYK"), "JPEG"),
        saved(noise(), "MPO", save_all=True, append_images=[noise()]),
        saved(noise(), "GIF", save_all=True, append_images=[noise().rotate(9)], transparency=3),
        saved(noise().quantize(16), "BMP"),
        *WEBPS,
    ]
    draw = random.Random(7)
    outcomes = set()
    for _ in range(3000):
        file = bytearray(draw.choice(files))
        for _ in range(draw.randint(1, 6)):
            end = min(len(file), draw.choice([40, 200, 1 << 20]))  # damage to headers matters most
            file[draw.randrange(end)] = draw.randrange(256)
        outcomes.add(tried(bytes(file)))
    assert outcomes == {True, False}
