"""URLs of items: `data:` is decoded here, once, and strictly. Other URLs are only checked."""

from __future__ import annotations

import base64
import binascii
from typing import NamedTuple
from urllib.parse import urlsplit

from epd.errors import BadRequest, TooLarge
from epd.media.data_url import parse_data_url
from epd.prompt import Source
from epd.types import ItemForm

LONGEST_URL = 8192  # of all but data: URLs, which are bounded by the body
MOST_FRAMES = 4096  # in one list, whatever is taken of them

FRAMES = "video/jpeg"
"""The media type of a data: URL that has a video's frames, each as base64 of a picture."""


class Place(NamedTuple):
    """An item as its client counts it ("video 1", of all items), and where the request has it."""

    name: str
    where: str


def check_url(url: str, place: Place, *, local: bool) -> None:
    """BadRequest unless it may name an item; `local`: on the encode worker's disk, too."""
    if len(url) > LONGEST_URL:
        raise bad(place, f"its URL is longer than {LONGEST_URL} characters")
    try:
        split = urlsplit(url)
        scheme, host = split.scheme, split.hostname
    except ValueError:
        raise bad(place, "its URL cannot be parsed") from None
    if scheme == "file":
        if not local:
            raise bad(place, "this server reads no local files")
    elif scheme not in ("http", "https"):
        raise bad(place, "its URL must begin with https://, http:// or data:")
    elif not host:
        raise bad(place, "its URL names no host")


def open_inline(url: str, place: Place, *, frames: bool, most_bytes: int) -> Source:
    """What a `data:` URL holds; with `frames`, that may be a video picture by picture."""
    try:
        inline = parse_data_url(url)
    except BadRequest as error:
        raise bad(place, error.message) from None
    if not inline.base64:
        data = inline.data
        check_size(len(data), place, most_bytes)
    elif frames and inline.media_type == FRAMES:
        return _open_frames(inline.text, place, most_bytes)
    else:
        data = decode(inline.text, place, most_bytes=most_bytes)
    if not data:
        raise bad(place, "its data: URL holds no data")
    return Source.file(data)


def _open_frames(text: str, place: Place, most_bytes: int) -> Source:
    if (num := text.count(",") + 1) > MOST_FRAMES:
        raise bad(place, f"it has {num} frames; this server takes {MOST_FRAMES} at most")
    encoded = text.split(",")
    check_size(sum(map(_size, encoded)), place, most_bytes)
    pieces = [
        (f"frame{k}", decode(frame, place, most_bytes=most_bytes, name=f"frame {k}"))
        for k, frame in enumerate(encoded)
    ]
    if empty := [name for name, data in pieces if not data]:
        raise bad(place, f"its {empty[0]} holds no data")
    return Source.of(pieces, ItemForm.FRAMES)


def decode(text: str, place: Place, *, most_bytes: int, name: str = "") -> bytes:
    """Strict base64: the standard alphabet, padded, nothing between. Its size is judged first."""
    check_size(_size(text), place, most_bytes)
    what = f"{name}: its" if name else "its"
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:  # the latter for what is not ASCII
        raise bad(place, f"{what} base64 is not valid ({error})") from None


def check_size(num_bytes: int, place: Place, most_bytes: int) -> None:
    """TooLarge where an item has more inline bytes than are allowed."""
    if num_bytes > most_bytes:
        text = f"{place.name}: {num_bytes} bytes, {most_bytes} are allowed"
        raise TooLarge(text, param=place.where)


def bad(place: Place, reason: str) -> BadRequest:
    """A 400 that names the part."""
    return BadRequest(f"{place.where}: {reason}", param=place.where)


def _size(text: str) -> int:
    """Bytes that this base64 stands for."""
    return len(text) // 4 * 3 - (2 if text.endswith("==") else text.endswith("="))
