"""URLs of items: `data:` is decoded here, once, and strictly. Other URLs are only checked."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from epd.errors import BadRequest, TooLarge
from epd.prompt import Source
from epd.types import ItemForm

LONGEST_URL = 8192  # of all but data: URLs, which are bounded by the body
MOST_FRAMES = 4096  # in one list, whatever is taken of them

FRAMES = "video/jpeg"
"""The media type of a data: URL that has a video's frames, each as base64 of a picture."""

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def is_inline(url: str) -> bool:
    """By its scheme alone."""
    return url[:5].lower() == "data:"


def check_url(url: str, where: str, *, local: bool) -> None:
    """BadRequest unless it may name an item; `local`: on the encode worker's disk, too."""
    if len(url) > LONGEST_URL:
        raise bad(where, f"its URL is longer than {LONGEST_URL} characters")
    try:
        split = urlsplit(url)
        scheme, host = split.scheme, split.hostname
    except ValueError:
        raise bad(where, "its URL cannot be parsed") from None
    if scheme == "file":
        if not local:
            raise bad(where, "this server reads no local files")
    elif scheme not in ("http", "https"):
        raise bad(where, "its URL must begin with https://, http:// or data:")
    elif not host:
        raise bad(where, "its URL names no host")


def open_inline(url: str, where: str, *, frames: bool, most_bytes: int) -> Source:
    """What a `data:` URL holds; with `frames`, that may be a video picture by picture."""
    header, comma, payload = url[5:].partition(",")
    if not comma:
        raise bad(where, "its data: URL has no comma before the data")
    if not payload.isascii() or _BAD_ESCAPE.search(payload):
        raise bad(where, "its data: URL is not percent-encoded correctly")
    kind, _, encoding = header.rpartition(";")
    encoded = encoding.strip().lower() == "base64"
    if not encoded:
        data = unquote_to_bytes(payload)
        check_size(len(data), where, most_bytes)
    else:
        # A payload without escapes, the common case, is not copied.
        text = unquote(payload, encoding="latin-1") if "%" in payload else payload
        if frames and kind.partition(";")[0].strip().lower() == FRAMES:
            return _open_frames(text, where, most_bytes)
        data = decode(text, where, most_bytes=most_bytes)
    if not data:
        raise bad(where, "its data: URL holds no data")
    return Source.file(data)


def _open_frames(text: str, where: str, most_bytes: int) -> Source:
    if (num := text.count(",") + 1) > MOST_FRAMES:
        raise bad(where, f"it has {num} frames; this server takes {MOST_FRAMES} at most")
    encoded = text.split(",")
    check_size(sum(map(_size, encoded)), where, most_bytes)
    pieces = [
        (f"frame{k}", decode(frame, where, most_bytes=most_bytes, name=f"frame {k}"))
        for k, frame in enumerate(encoded)
    ]
    if empty := [name for name, data in pieces if not data]:
        raise bad(where, f"its {empty[0]} holds no data")
    return Source.of(pieces, ItemForm.FRAMES)


def decode(text: str, where: str, *, most_bytes: int, name: str = "") -> bytes:
    """Strict base64: the standard alphabet, padded, nothing between. Its size is judged first."""
    check_size(_size(text), where, most_bytes)
    what = f"{name}: its" if name else "its"
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:  # the latter for what is not ASCII
        raise bad(where, f"{what} base64 is not valid ({error})") from None


def check_size(num_bytes: int, where: str, most_bytes: int) -> None:
    """TooLarge where an item has more inline bytes than are allowed."""
    if num_bytes > most_bytes:
        text = f"{where}: {num_bytes} bytes, {most_bytes} are allowed"
        raise TooLarge(text, param=where)


def bad(where: str, reason: str) -> BadRequest:
    """A 400 that names the part."""
    return BadRequest(f"{where}: {reason}", param=where)


def _size(text: str) -> int:
    """Bytes that this base64 stands for."""
    return len(text) // 4 * 3 - (2 if text.endswith("==") else text.endswith("="))
