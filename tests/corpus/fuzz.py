"""Mutations of valid files: nothing worse than a refusal may come of any."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator

import torch

from tests.corpus import embeds
from tests.corpus.entry import Entry, data_url, url_part
from tests.corpus.making import film, moving, picture, scene, sound, sound_film, tone
from tests.corpus.videos import frames_url, jpegs

ANY = (200, 400, 413, 422)

EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def seeds(width: int) -> dict[tuple[str, str], list[bytes]]:
    """Valid files by (modality, type)."""
    image = scene(60, 44)
    return {
        ("image", "image/png"): [picture(), picture("PNG", image.convert("P"))],
        ("image", "image/jpeg"): [picture("JPEG"), picture("JPEG", image, progressive=True)],
        ("image", "image/gif"): [picture("GIF")],
        ("image", "image/webp"): [picture("WEBP"), picture("WEBP", image, lossless=True)],
        ("image", "image/bmp"): [picture("BMP")],
        ("video", "video/mp4"): [film(moving(4)), film(moving(4), samples=tone(1))],
        ("video", "video/webm"): [film(moving(4), kind="webm", codec="libvpx")],
        ("video", "video/x-matroska"): [film(moving(4), kind="matroska", codec="libx265")],
        ("video", "video/x-msvideo"): [film(moving(4), kind="avi", codec="mpeg4")],
        ("audio", "audio/wav"): [sound(tone(0.3)), sound(tone(0.3), subtype="FLOAT")],
        ("audio", "audio/flac"): [sound(tone(0.3), "FLAC")],
        ("audio", "audio/mpeg"): [sound(tone(0.3), "MP3")],
        ("audio", "audio/ogg"): [sound(tone(0.3), "OGG")],
        ("audio", "audio/mp4"): [sound_film(tone(0.3), kind="ipod")],
        ("frames", "video/jpeg"): [picture("JPEG")],
        ("embeds", "safetensors"): [embeds.stored(embeds.rows(width))],
        ("embeds", "torch"): [embeds.saved(torch.from_numpy(embeds.rows(width)))],
    }


def mutations(number: int, width: int, *, seed: int) -> Iterator[Entry]:
    """So many, all kinds in turn; equal arguments, equal mutations."""
    rng = random.Random(seed)
    valid = list(seeds(width).items())
    for at in range(number):
        (modality, mime), files = valid[at % len(valid)]
        change = CHANGES[at // len(valid) % len(CHANGES)]
        data = change(rng.choice(files), rng)
        name = f"fuzz: {at} of seed {seed}, {modality} {mime}, {change.__name__}"
        yield Entry(name, _part(modality, mime, data or b"\0"), ANY)


def _part(modality: str, mime: str, data: bytes) -> dict[str, object]:
    if modality == "embeds":
        return embeds.part(data, embeds.stored(embeds.GRID, "image_grid_thw"))
    if modality == "frames":
        return url_part("video", frames_url(*jpegs(2, 60, 44), data))
    part = url_part(modality, data_url(data, mime))
    return part | ({"use_audio_in_video": True} if modality == "video" else {})


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(rng.choice((1, 2, 8, 64))):
        found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    return bytes(found)


def flip_head(data: bytes, rng: random.Random) -> bytes:
    """Where most of the structure is."""
    head = min(len(data), 256)
    return flip_bits(data[:head], rng) + data[head:]


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(1, len(data))]


def drop(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randrange(1, 64) :]


def repeat(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    end = start + rng.randrange(1, 512)
    return data[:end] + data[start:end] * rng.randrange(1, 4) + data[end:]


def splice(data: bytes, rng: random.Random) -> bytes:
    """A part of itself somewhere else."""
    start, at = rng.randrange(len(data)), rng.randrange(len(data))
    return data[:at] + data[start : start + rng.randrange(1, 256)] + data[at:]


def set_number(data: bytes, rng: random.Random) -> bytes:
    """A length or count somewhere becomes an extreme one."""
    order, size = rng.choice("<>"), rng.choice("BHI")
    width = struct.calcsize(size)
    at = rng.randrange(max(1, min(len(data), 1024) - width))
    value = rng.choice(EXTREMES) % (1 << 8 * width)
    return data[:at] + struct.pack(order + size, value) + data[at + width :]


def noise(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + rng.randbytes(rng.randrange(1, 128)) + data[start + 64 :]


CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flip_bits,
    flip_head,
    cut,
    drop,
    repeat,
    splice,
    set_number,
    noise,
)
