"""Inline media: `data:` URLs are decoded here, once, and strictly. Other URLs are only checked."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes, urlsplit

from epd.errors import BadRequest

LONGEST_URL = 8192  # of http(s) URLs; data: URLs are bounded by the body

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def open_url(url: str, where: str) -> tuple[str | None, bytes | None]:
    """(url, None) for http(s), (None, bytes) for `data:`. BadRequest names `where`."""
    if url[:5].lower() == "data:":
        return None, _decode(url, where)
    if len(url) > LONGEST_URL:
        raise _bad(where, f"its URL is longer than {LONGEST_URL} characters")
    try:
        split = urlsplit(url)
        scheme, host = split.scheme, split.hostname
    except ValueError:
        raise _bad(where, "its URL cannot be parsed") from None
    if scheme not in ("http", "https"):
        raise _bad(where, "its URL must begin with https://, http:// or data:")
    if not host:
        raise _bad(where, "its URL names no host")
    return url, None


def _decode(url: str, where: str) -> bytes:
    header, comma, payload = url[5:].partition(",")
    if not comma:
        raise _bad(where, "its data: URL has no comma before the data")
    if not payload.isascii() or _BAD_ESCAPE.search(payload):
        raise _bad(where, "its data: URL is not percent-encoded correctly")
    # A payload without escapes, the common case, is not copied.
    data = unquote_to_bytes(payload) if "%" in payload else payload.encode("ascii")
    if header.rpartition(";")[2].strip().lower() == "base64":
        try:
            data = base64.b64decode(data, validate=True)
        except binascii.Error as error:
            raise _bad(where, f"its base64 is not valid ({error})") from None
    if not data:
        raise _bad(where, "its data: URL holds no data")
    return data


def _bad(where: str, reason: str) -> BadRequest:
    return BadRequest(f"{where}: {reason}", param=where)
