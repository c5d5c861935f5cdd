"""`data:` URLs, strictly: what they hold, and as what."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, unquote_to_bytes

from epd.errors import BadRequest

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inline:
    """`text` is the payload as written, base64 or percent-encoded; `media_type` may be ""."""

    media_type: str
    base64: bool
    text: str

    @property
    def data(self) -> bytes:
        """Of a payload that is not base64."""
        return unquote_to_bytes(self.text)


def is_data_url(url: str) -> bool:
    """By its scheme alone."""
    return url[:5].lower() == "data:"


def parse_data_url(url: str) -> Inline:
    """BadRequest where it is not well-formed; base64 is not decoded here."""
    header, comma, text = url[5:].partition(",")
    if not is_data_url(url) or not comma:
        raise BadRequest("its data: URL has no comma before the data")
    if not text.isascii() or _BAD_ESCAPE.search(text):
        raise BadRequest("its data: URL is not percent-encoded correctly")
    kind, _, encoding = header.rpartition(";")
    encoded = encoding.strip().lower() == "base64"
    media_type = (kind if encoded else header).partition(";")[0].strip().lower()
    # A payload without escapes, the common case, is not copied.
    if encoded and "%" in text:
        text = unquote(text, encoding="latin-1")
    return Inline(media_type=media_type, base64=encoded, text=text)
