"""Pictures that are odd and right: every one of them has pixels to answer about."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from functools import partial

from PIL import Image, PngImagePlugin

from tests.corpus.entry import BAD, Entry, of_file
from tests.corpus.making import picture, scene

ORIENTATION = 0x0112

png = partial(of_file, "image", "image/png")
jpeg = partial(of_file, "image", "image/jpeg")
gif = partial(of_file, "image", "image/gif")
webp = partial(of_file, "image", "image/webp")
bmp = partial(of_file, "image", "image/bmp")


def entries() -> Iterator[Entry]:
    yield from _orientations()
    yield from _modes()
    yield from _shapes()
    yield from _moving()
    yield from _metadata()


def _orientations() -> Iterator[Entry]:
    for value in range(11):
        exif = Image.Exif()
        exif[ORIENTATION] = value
        yield jpeg(f"orientation {value}", picture("JPEG", exif=exif))
    yield jpeg("an orientation that is a word", picture("JPEG", exif=_exif_of_text()))
    yield jpeg("EXIF of noise", picture("JPEG", exif=b"Exif\0\0" + bytes(range(256))))


def _exif_of_text() -> bytes:
    """One directory with one entry: the orientation, as four characters in place."""
    entry = struct.pack("<HHI4s", ORIENTATION, 2, 4, b"up!\0")
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)


def _modes() -> Iterator[Entry]:
    image = scene(60, 44)
    alpha = image.copy()
    alpha.putalpha(image.convert("L"))
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        yield png(f"mode {mode}", picture("PNG", alpha.convert(mode)))
    yield png("a palette with one clear colour", picture("PNG", image.convert("P"), transparency=3))
    yield png("grey of 16 bits", picture("PNG", image.convert("I;16")))
    yield png("colour of 16 bits", png_bytes(4, 4, bytes(4 * (1 + 4 * 6)), depth=16, colour=2))
    yield png("quick compression", picture("PNG", image, compress_level=1))
    for mode in ("L", "RGB", "CMYK"):
        yield jpeg(f"JPEG in {mode}", picture("JPEG", image.convert(mode)))
    yield jpeg("progressive", picture("JPEG", image, progressive=True))
    yield jpeg("no subsampling", picture("JPEG", image, subsampling=0))
    yield jpeg("the worst quality", picture("JPEG", image, quality=1))
    for mode in ("1", "L", "P", "RGB"):
        yield bmp(f"BMP in {mode}", picture("BMP", image.convert(mode)))
    yield webp("lossy WebP", picture("WEBP", image))
    yield webp("lossless WebP", picture("WEBP", image, lossless=True))
    yield webp("WebP with alpha", picture("WEBP", alpha))


def _shapes() -> Iterator[Entry]:
    """As thin as these the model's own processor takes none: it says so with the ratio."""
    for kind, make in (("PNG", png), ("JPEG", jpeg)):
        yield make(f"1x1 {kind}", picture(kind, Image.new("RGB", (1, 1), "red")))
    for width, height in ((2, 2), (3, 7), (199, 1), (1, 199)):
        yield png(f"{width}x{height}", picture("PNG", Image.new("RGB", (width, height), "blue")))
    for width, height in ((10_000, 1), (1, 10_000), (201, 1)):
        thin = picture("PNG", Image.new("RGB", (width, height), "blue"))
        yield png(f"{width}x{height}", thin, BAD, "ratio")


def _moving() -> Iterator[Entry]:
    """The first frame is the picture."""
    frames = [scene(60, 44, seed) for seed in range(3)]
    pages = [frame.convert("P") for frame in frames]
    more = {"save_all": True, "append_images": frames[1:], "duration": 50}
    yield gif("GIF", picture("GIF", frames[0]))
    yield gif("animated GIF", picture("GIF", pages[0], save_all=True, append_images=pages[1:]))
    yield gif("GIF with a clear colour", picture("GIF", pages[0], transparency=1))
    yield webp("animated WebP", picture("WEBP", frames[0], **more))
    yield png("animated PNG", picture("PNG", frames[0], **more))
    yield gif("one picture and then noise", picture("GIF", frames[0])[:-1] + bytes(range(200)))


def _metadata() -> Iterator[Entry]:
    image = scene(60, 44)
    notes = PngImagePlugin.PngInfo()
    notes.add_text("note", "x" * 500_000)
    yield png("a long text", picture("PNG", image, pnginfo=notes))
    bomb = PngImagePlugin.PngInfo()
    bomb.add_text("note", "x" * 20_000_000, zip=True)
    yield png("a text of 20 MB, zipped", picture("PNG", image, pnginfo=bomb), BAD, "picture")
    many = PngImagePlugin.PngInfo()
    for number in range(70):
        many.add_text(f"note {number}", "x" * 1_000_000, zip=True)
    yield png("seventy texts of 1 MB, zipped", picture("PNG", image, pnginfo=many), BAD, "picture")
    yield png("a colour profile of noise", picture("PNG", image, icc_profile=bytes(2000)))
    yield jpeg("a huge colour profile", picture("JPEG", image, icc_profile=bytes(400_000)))
    yield jpeg("a comment", picture("JPEG", image, comment=b"\xff\xd8" * 4000))
    for kind, make in (("PNG", png), ("JPEG", jpeg)):
        data = picture(kind, image)
        yield make(f"{kind} and then a page", data + b"<script>alert(1)</script>" * 40)
        yield make(f"{kind} and then another", data + data)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", dpi=(0, 65535))
    yield jpeg("no resolution", buffer.getvalue())
    yield of_file("image", "image/jpeg", "PNG that says JPEG", picture("PNG", image))
    yield of_file("image", "image/gif", "WebP that says GIF", picture("WEBP", image))


def png_bytes(
    width: int, height: int, pixels: bytes, *, depth: int = 8, colour: int = 2, level: int = 9
) -> bytes:
    """A PNG whose header and pixels need not fit each other."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            png_chunk(b"IHDR", header),
            png_chunk(b"IDAT", zlib.compress(pixels, level)),
            png_chunk(b"IEND", b""),
        ]
    )


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk with its length and checksum."""
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum
