"""Pictures that are none: cut, damaged, larger than anybody has room for, or something else."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.corpus.entry import BAD, NO_WORSE, Entry, of_file
from tests.corpus.making import film, picture, scene, sound
from tests.corpus.pictures import bmp, gif, jpeg, png, png_bytes, png_chunk, webp


def entries() -> Iterator[Entry]:
    yield from _cut()
    yield from _damaged()
    yield from _bombs()
    yield from _disguised()


def _cut() -> Iterator[Entry]:
    """Pillow takes what has all its pixels and no end."""
    image = scene(120, 90)
    for kind, make, places in (
        ("PNG", png, (1, 8, 20, 33, 0.5, 0.9)),
        ("JPEG", jpeg, (2, 10, 200, 0.5, 0.95)),
        ("GIF", gif, (6, 13, 0.5)),
        ("WEBP", webp, (12, 0.5, 0.95)),
        ("BMP", bmp, (2, 30, 0.5)),
    ):
        data = picture(kind, image)
        for place in places:
            at = place if isinstance(place, int) else int(place * len(data))
            yield make(f"{kind} cut at {place}", data[:at], BAD)
    yield png("PNG without its end", picture("PNG", image)[:-12], NO_WORSE)
    yield jpeg("JPEG without its end", picture("JPEG", image)[:-2], NO_WORSE)


def _damaged() -> Iterator[Entry]:
    data = bytearray(picture("PNG", scene(60, 44)))
    header = data.index(b"IHDR")
    for name, at, value in (
        ("no width", header + 4, b"\0\0\0\0"),
        ("a negative width", header + 4, b"\x80\0\0\1"),
        ("an unknown depth", header + 12, b"\3"),
        ("an unknown colour type", header + 13, b"\7"),
    ):
        changed = data[:at] + value + data[at + len(value) :]
        checksum = zlib.crc32(changed[header : header + 17]).to_bytes(4, "big")
        changed[header + 17 : header + 21] = checksum
        yield png(f"a header with {name}", bytes(changed), BAD)
    wrong = bytes(data).replace(b"IDAT", b"IDAZ", 1)
    yield png("pixels under another name", wrong, BAD)
    at = data.index(b"IDAT") + 40
    data[at] ^= 0xFF
    yield png("a pixel that does not fit its checksum", bytes(data), BAD)
    yield png("no pixels at all", png_bytes(60, 44, b""), BAD)
    yield png("noise instead of pixels", _with_raw_pixels(b"\1" * 300), BAD)
    noise = np.random.default_rng(5).bytes(4000)
    middle = picture("JPEG", scene(120, 90))
    yield jpeg("noise inside", middle[:1500] + noise + middle[1500:], NO_WORSE)
    tables = middle.replace(b"\xff\xdb", b"\xff\xfe", 1)
    yield jpeg("a table that is missing", tables, NO_WORSE)


def _with_raw_pixels(pixels: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", 60, 44, 8, 2, 0, 0, 0)
    chunks = (png_chunk(b"IHDR", header), png_chunk(b"IDAT", pixels), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _bombs() -> Iterator[Entry]:
    """Their headers are enough to refuse them."""
    row = bytes(60_000 // 8 + 1)
    grey = png_bytes(60_000, 60_000, row * 600, depth=1, colour=0)
    yield png("60,000 x 60,000 in a few bytes", grey, BAD, "pixels")
    yield png("a header of 2^31 - 1 squared", png_bytes(2**31 - 1, 2**31 - 1, b""), BAD, "pixels")
    yield png("wide as a bomb, thin as a hair", png_bytes(2**31 - 1, 1, b""), BAD)
    large = picture("JPEG", Image.new("L", (64, 64)))
    at = large.index(b"\xff\xc0") + 5
    yield jpeg(
        "a JPEG of 65,000", large[:at] + b"\xfd\xe8\xfd\xe8" + large[at + 4 :], BAD, "pixels"
    )
    small = picture("GIF", Image.new("P", (4, 4)))
    canvas = small[:6] + struct.pack("<HH", 65_535, 65_535) + small[10:]
    yield gif("a canvas of 65,535 around a dot", canvas, BAD, "pixels")
    dot = picture("WEBP", Image.new("RGB", (4, 4)), lossless=True)
    at = dot.index(b"VP8L") + 9  # 14 bits of width - 1, as many of height - 1
    claims = (int.from_bytes(dot[at : at + 4], "little") | (1 << 28) - 1).to_bytes(4, "little")
    yield webp("a WebP of 16,384", dot[:at] + claims + dot[at + 4 :], BAD, "pixels")
    plain = picture("BMP", Image.new("RGB", (4, 4)))
    tall = plain[:18] + struct.pack("<ii", 100_000, 100_000) + plain[26:]
    yield bmp("a BMP of 100,000", tall, BAD, "pixels")
    negative = plain[:18] + struct.pack("<ii", -4, 4) + plain[26:]
    yield bmp("a BMP of negative width", negative, BAD)


def _disguised() -> Iterator[Entry]:
    others = {
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "HTML": b"<!doctype html><img src=http://169.254.169.254/>",
        "XML with an entity": b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
        "PDF": b"%PDF-1.7\n1 0 obj <</Type /Catalog>> endobj\ntrailer <</Root 1 0 R>>",
        "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id) (r) file\n%%EOF",
        "EPS in DOS form": b"\xc5\xd0\xd3\xc6" + bytes(26) + b"%!PS-Adobe-3.0",
        "PSD": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 9, 9, 8, 3) + bytes(20),
        "FITS": b"SIMPLE  =                    T".ljust(2880),
        "DICOM": bytes(128) + b"DICM",
        "XBM": b"#define a_width 9\n#define a_height 9\nstatic char a_bits[] = {1};",
        "MSP": b"DanM" + bytes(28),
        "an ELF file": b"\x7fELF\2\1\1" + bytes(60),
        "JSON": b'{"image": 1}',
        "zeros": bytes(100_000),
        "noise": np.random.default_rng(9).bytes(20_000),
        "one byte": b"\x89",
        "a gzip of a picture": gzip.compress(picture(), mtime=0),
        "a zip of a picture": _zipped(picture()),
        "MP4": film(),
        "WAV": sound(),
    }
    image = scene(60, 44)
    for kind in (
        "TIFF",
        "ICO",
        "PPM",
        "TGA",
        "JPEG2000",
        "AVIF",
        "PCX",
        "DDS",
        "ICNS",
        "PDF",
        "EPS",
    ):
        others[f"real {kind}"] = picture(kind, image.resize((64, 64)))
    for name, data in others.items():
        yield png(f"{name} that says PNG", data, BAD, "not a readable")
    yield of_file("image", "image/svg+xml", "SVG that says SVG", others["SVG"], BAD)
    yield of_file("image", "image/tiff", "TIFF that says TIFF", others["real TIFF"], BAD)


def _zipped(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("picture.png", data)
    return buffer.getvalue()
