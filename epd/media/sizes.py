"""How large a picture says it is, from its first bytes. Nothing is decoded and nothing judged."""

from __future__ import annotations

import re

from epd.media.headers import webp_size

_SEARCHED = 1 << 18
_PNG = b"\x89PNG\r\n\x1a\n"
# Start of frame: all of 0xc0..0xcf but tables (c4), a reserved one (c8) and conditioning (cc).
_FRAME = re.compile(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf]")


def picture_pixels(data: bytes | memoryview) -> int | None:
    """Width times height; None where the first bytes do not tell."""
    head = bytes(data[:_SEARCHED])
    size = _size(head)
    return None if size is None else size[0] * size[1]


def _size(head: bytes) -> tuple[int, int] | None:
    if head.startswith(b"\xff\xd8\xff"):
        return _jpeg(head)
    if head.startswith(_PNG) and len(head) >= 24:
        return _number(head, 16, 4, "big"), _number(head, 20, 4, "big")
    if head.startswith(b"GIF8") and len(head) >= 10:
        return _number(head, 6, 2), _number(head, 8, 2)
    if head.startswith(b"BM") and len(head) >= 26:
        return _number(head, 18, 4), abs(int.from_bytes(head[22:26], "little", signed=True))
    return webp_size(head)


def _jpeg(head: bytes) -> tuple[int, int] | None:
    """Segment by segment: a thumbnail inside one has a frame of its own."""
    at = 2
    while at + 9 <= len(head) and head[at] == 0xFF:
        if _FRAME.match(head, at):
            return _number(head, at + 7, 2, "big"), _number(head, at + 5, 2, "big")
        at += 2 + _number(head, at + 2, 2, "big") if head[at + 1] != 0xFF else 1
    return None


def _number(head: bytes, at: int, length: int, order: str = "little") -> int:
    return int.from_bytes(head[at : at + length], "big" if order == "big" else "little")
