"""MediaIO: one modality's files, read from bytes, base64 or a path, and written as base64.

Each modality has one small class of its own, beside its decoder. None of them opens a URL.
"""

from __future__ import annotations

import base64
import binascii
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from epd.config import MediaConfig
from epd.config.media import ItemLimits
from epd.errors import BadMedia, BadRequest, TooLarge
from epd.types import MediaOptions, Modality

M = TypeVar("M")


class MediaIO(ABC, Generic[M]):
    """Reads and writes one modality, M as in `epd.media.decoded`. Thread-safe; holds no file open.

    BadRequest, TooLarge or BadMedia for what cannot be read, whatever the bytes are. `options` say
    how items are read where that is not left to the decoder.
    """

    modality: ClassVar[Modality]

    def __init__(
        self, config: MediaConfig | None = None, options: MediaOptions | None = None
    ) -> None:
        self.config = config or MediaConfig()
        self.options = options or MediaOptions()

    @property
    def limits(self) -> ItemLimits:
        """Of this modality."""
        return self.config.limits(self.modality.value)

    @property
    @abstractmethod
    def decoding(self) -> str:
        """What it does to a file's bytes, with versions and settings, for content keys."""

    @abstractmethod
    def load_bytes(self, data: bytes) -> M:
        """Decode a file's content."""

    def load_base64(self, data: str, media_type: str = "") -> M:
        """Decode base64 of it. `media_type` is what a data: URL says, "" where nothing does."""
        return self.load_bytes(decode_base64(data, self.limits.max_bytes))

    def load_file(self, path: Path) -> M:
        """Decode a file that the caller may read: no policy is asked, only the size."""
        return self.load_bytes(read_file(path, self.limits.max_bytes))

    @abstractmethod
    def encode_base64(self, media: M) -> str:
        """As a file that `load_base64` reads."""


def decode_base64(text: str, max_bytes: int) -> bytes:
    """Strict: the standard alphabet, padded, nothing between. The size is judged first."""
    if len(text) // 4 * 3 - 2 > max_bytes:
        raise TooLarge(f"file larger than {max_bytes} bytes")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):  # the latter for what is not ASCII
        raise BadRequest("not valid base64") from None
    if len(data) > max_bytes:
        raise TooLarge(f"file larger than {max_bytes} bytes")
    return data


def read_file(path: Path, max_bytes: int) -> bytes:
    """The file's content, never more than one byte beyond the limit of it."""
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError:
        raise BadMedia("the file cannot be read") from None
    if len(data) > max_bytes:
        raise TooLarge(f"file larger than {max_bytes} bytes")
    return data
