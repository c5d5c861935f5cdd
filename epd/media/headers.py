"""Pictures judged by their first bytes, where Pillow would work or allocate before it can be asked.

Pillow reads what stands around the pixels piece by piece in Python and keeps it, and libwebp makes
room for a whole canvas when a file is opened. So the pieces are counted here first, and the size of
a WebP is read. Nothing else is judged: what is damaged, Pillow will find.
"""

from __future__ import annotations

import re

from epd.errors import BadMedia

_MOST_SEGMENTS = 4096  # of a JPEG; a profile alone may take 255
_MOST_JUNK = 4096  # bytes between them
_MOST_SCANS = 64  # a progressive one has about ten, each of which goes over all pixels
_MOST_BLOCKS = 8192  # of a GIF, of 255 bytes, before its first frame
_MOST_CHUNKS = 8192  # of a PNG, not counting those with pixels
_MOST_PIXEL_CHUNKS = 1 << 18

_PNG = b"\x89PNG\r\n\x1a\n"
# Within pixels, 0xff is followed by 0 or the number of a restart.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_NO_LENGTH = frozenset({0x01, 0xD8})
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_PLAIN_FRAMES = frozenset({0xC0, 0xC1})  # baseline and extended sequential


def refuse_costly(data: bytes) -> None:
    """BadMedia where so much stands around the pixels that reading it would be an attack."""
    if data.startswith(b"\xff\xd8\xff"):
        _jpeg(data)
    elif data.startswith(_PNG):
        _png(data)
    elif data.startswith(b"GIF8"):
        _gif(data)


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a WebP's canvas; None where it is none, or its header is cut."""
    if len(data) < 30 or data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return None
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + _little(data, 24, 3), 1 + _little(data, 27, 3)
    if kind == b"VP8L":
        bits = _little(data, 21, 4)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return _little(data, 26, 2) & 0x3FFF, _little(data, 28, 2) & 0x3FFF


def _little(data: bytes, at: int, length: int) -> int:
    return int.from_bytes(data[at : at + length], "little")


def _jpeg(data: bytes) -> None:
    """To the end of the picture: phones put whole videos behind it.

    Or to the one scan of a picture that can have no other, as that of most has all components:
    from there on libjpeg reads what comes once, and finding no end is half of what is done here.
    """
    at, junk, segments, scans, components = 2, 0, 0, 0, 0
    while marker := _MARKER.search(data, at):
        kind = data[marker.end() - 1]
        junk += marker.start() - at
        segments += 1
        scans += kind == _START_OF_SCAN
        if segments > _MOST_SEGMENTS or junk > _MOST_JUNK:
            raise BadMedia("JPEG with too much around its pixels")
        if scans > _MOST_SCANS:
            raise BadMedia(f"JPEG with more than {_MOST_SCANS} scans")
        if kind == _END_OF_IMAGE:
            return
        at = marker.end()
        if kind in _PLAIN_FRAMES:
            components = _little(data, at + 7, 1)
        if kind == _START_OF_SCAN and components and _little(data, at + 2, 1) == components:
            return
        if kind not in _NO_LENGTH:
            at += max(2, int.from_bytes(data[at : at + 2], "big"))
        if kind == _START_OF_SCAN:
            behind = _MARKER.search(data, at)
            at = len(data) if behind is None else behind.start()


def _png(data: bytes) -> None:
    at, pixel_chunks, others = len(_PNG), 0, 0
    while at + 12 <= len(data):
        if data[at + 4 : at + 8] in (b"IDAT", b"fdAT"):
            pixel_chunks += 1
        else:
            others += 1
        if others > _MOST_CHUNKS or pixel_chunks > _MOST_PIXEL_CHUNKS:
            raise BadMedia("PNG with too many chunks")
        at += 12 + int.from_bytes(data[at : at + 4], "big")


def _gif(data: bytes) -> None:
    flags = data[10] if len(data) > 10 else 0
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    blocks = 0
    while at < len(data) and data[at] != 0x2C:
        if data[at] == 0x21:
            at += 2
            while at < len(data) and data[at] and blocks <= _MOST_BLOCKS:
                at += 1 + data[at]
                blocks += 1
        at += 1
        blocks += 1
        if blocks > _MOST_BLOCKS:
            raise BadMedia("GIF with too much before its first frame")
