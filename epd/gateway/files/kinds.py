"""What a file is: by its media type, else by its name, else by how it begins. Pure."""

from __future__ import annotations

from enum import StrEnum
from pathlib import PurePosixPath

TAKEN = (
    "text in UTF-8 (text/*, JSON, XML, YAML, CSV, code), PDF, and pictures, videos and sounds that "
    "the model takes"
)
HEAD_BYTES = 16
"""What of_beginning() has to see of a file."""


class Kind(StrEnum):
    """What a prompt has in a file's place."""

    TEXT = "text"
    PDF = "pdf"
    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"


_UNSAID = frozenset({"", "application/octet-stream", "binary/octet-stream"})
_TEXTS = (
    " json xml yaml x-yaml toml javascript x-javascript ecmascript typescript sql x-sql x-ndjson "
    "jsonl csv x-csv x-sh x-shellscript x-python x-httpd-php x-tex x-latex graphql "
)
_SUFFIXES: dict[Kind, str] = {
    Kind.PDF: " pdf ",
    Kind.IMAGE: " png jpg jpeg gif webp bmp tif tiff avif heic ico ",
    Kind.VIDEO: " mp4 m4v mov mkv webm avi mpg mpeg ogv ",
    Kind.AUDIO: " wav mp3 flac ogg oga opus m4a aac aif aiff ",
    Kind.TEXT: (
        " txt text md markdown rst tex csv tsv json jsonl ndjson yaml yml toml xml html htm css "
        "svg ini cfg conf env log diff patch sql graphql proto srt vtt py pyi ipynb js mjs cjs jsx "
        "ts tsx java kt c h cc cpp cxx hpp hh cs go rs rb php pl lua r jl swift scala hs ml clj ex "
        "exs erl sh bash zsh fish ps1 bat cmake mk gradle tf vue svelte dart zig "
    ),
}
_BEGINNINGS = (
    (b"%PDF-", "pdf"),
    (b"\x89PNG\r\n\x1a\n", "image"),
    (b"\xff\xd8\xff", "image"),
    (b"GIF8", "image"),
    (b"fLaC", "audio"),
    (b"OggS", "audio"),
    (b"ID3", "audio"),
    (b"\x1a\x45\xdf\xa3", "video"),
)
_RIFF = {b"WAVE": "audio", b"WEBP": "image", b"AVI ": "video"}


def of_type(media_type: str) -> Kind | None:
    """By what its sender says it is. None: that says nothing that is known."""
    top, _, sub = media_type.partition("/")
    if media_type == "application/pdf":
        return Kind.PDF
    if top in ("image", "video", "audio") and sub != "svg+xml":
        return Kind(top)
    if top == "text" or media_type == "image/svg+xml":
        return Kind.TEXT
    if top == "application" and (f" {sub} " in _TEXTS or sub.endswith(("+json", "+xml", "+yaml"))):
        return Kind.TEXT
    return None


def is_unsaid(media_type: str) -> bool:
    """Whether it stands for any file."""
    return media_type in _UNSAID


def of_name(name: str) -> Kind | None:
    """By the end of its name."""
    suffix = PurePosixPath(name).suffix.lower().removeprefix(".")
    known = (kind for kind, names in _SUFFIXES.items() if suffix and f" {suffix} " in names)
    return next(known, None)


def of_beginning(head: bytes) -> Kind | None:
    """By its first HEAD_BYTES. None: it may be text, or anything."""
    for beginning, kind in _BEGINNINGS:
        if head.startswith(beginning):
            return Kind(kind)
    if head.startswith(b"RIFF") and head[8:12] in _RIFF:
        return Kind(_RIFF[head[8:12]])
    if head[4:8] == b"ftyp":
        return Kind.AUDIO if head[8:11] == b"M4A" else Kind.VIDEO
    return None
