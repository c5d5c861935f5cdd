"""Containers of video and sound: recognised by their first bytes, opened in memory.

FFmpeg gets the name of the one demuxer to use, lists of the codecs it may try, and no protocol: a
playlist inside a file cannot make it open another file or a URL.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import av
import av.logging
from av.container import InputContainer

from epd.errors import BadMedia

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,wav,flac,ogg,mp3,aac,aiff"
"""FFmpeg's names of all containers that are let in."""

VIDEO_CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "av1", "mpeg4"})
SOUND_CODECS = frozenset({"aac", "mp3", "opus", "vorbis", "flac", "alac"})
_VIDEO_DECODERS = (*VIDEO_CODECS, "libdav1d", "libvpx", "libvpx-vp9")
_SOUND_DECODERS = (*SOUND_CODECS, "mp3float")

# What FFmpeg says about a stranger's file belongs to no log of ours.
av.logging.set_level(None)


def is_sound_codec(name: str) -> bool:
    """Whether sound in this codec is decoded; plain samples always are."""
    return name in SOUND_CODECS or name.startswith("pcm_")


def video_format(data: bytes) -> str | None:
    """FFmpeg's name of the container, None for one that videos may not have."""
    if data[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mov"
    if data[:4] == b"\x1aE\xdf\xa3":
        return "matroska"
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "avi"
    return None


def sound_format(data: bytes) -> str | None:
    """FFmpeg's name of a container that may hold sound."""
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return "wav"
    if data[:4] == b"FORM" and data[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    for magic, name in ((b"fLaC", "flac"), (b"OggS", "ogg"), (b"ID3", "mp3")):
        if data.startswith(magic):
            return name
    if len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0:
        return "aac" if data[1] & 0xF6 == 0xF0 else "mp3"
    return video_format(data)


@contextmanager
def opened(data: bytes, name: str, *, max_pixels: int = 1) -> Iterator[InputContainer]:
    """The container, demuxed by `name` alone. BadMedia for whatever goes wrong inside."""
    options = {
        "format_whitelist": FORMATS,
        "codec_whitelist": ",".join((*_VIDEO_DECODERS, *_SOUND_DECODERS, *_PCM)),
        "protocol_whitelist": "none",
        "max_pixels": str(max_pixels),
    }
    try:
        with av.open(io.BytesIO(data), "r", format=name, options=options) as container:
            yield container
    except (MemoryError, BadMedia):
        raise
    except Exception as error:  # FFmpeg's errors have many bases, OSError and ValueError among them
        raise BadMedia("damaged or truncated file") from error


def attached(stream: Any) -> bool:
    """Whether it is a cover picture, not a video."""
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


_PCM = tuple(sorted(name for name in av.codecs_available if name.startswith("pcm_")))
