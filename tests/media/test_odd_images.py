"""Pictures as people and attackers make them: right, or a BadMedia."""

from __future__ import annotations

import io
import random
import struct
import zlib

import pytest
from PIL import Image, ImageCms, PngImagePlugin

from epd.config.media import ImageLimits
from epd.errors import BadMedia
from epd.media.headers import webp_size
from epd.media.image import FORMATS, decoding, load_image

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


# ---- right


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
    assert len({decoding(config), decoding(LIMITS)}) == 2
    assert decoding(LIMITS) == decoding(ImageLimits(max_pixels=5))


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


# ---- refused


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


# ---- damaged


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
