"""Desks: memory that a decoder process shares with its parent, a file on its way there, a picture
on its way back. Its pages are there already; new ones cost more than a copy.

A picture is not copied from its desk: the desk is lent with it, and free again when nobody has the
picture any more. Meanwhile the process decodes on another one. The memory can neither shrink nor go
away under a picture, whatever becomes of the process. Its pixels can change, if a file has taken
the process over: that file's picture would be wrong anyway, and so would those that are decoded
after it, until the process is replaced.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import weakref
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from epd.media.decoders import sealed

NUM_DESKS = 3
"""Of one process: a picture that is preprocessed, the next one that waits for it, and room."""

DESK_BYTES = 64 << 20
"""Pictures of telephones have 12 million pixels."""

MOST_PIXELS = DESK_BYTES // 4
"""Of a picture on a desk."""

ALL_BYTES = NUM_DESKS * DESK_BYTES

_core: Any = Image.core  # type: ignore[attr-defined]


class Desks:
    """The parent's side. Whoever has the process calls; pictures may be dropped in any thread."""

    def __init__(self, fd: int) -> None:
        """`fd` is of shared_memory() and stays the caller's."""
        self._pages = mmap.mmap(fd, ALL_BYTES)
        # As a stack: the pages of the desk that was used last are in the caches of processors.
        # Appending and popping are atomic, so leases end without a lock, even inside the collector.
        self._free = list(range(NUM_DESKS))
        self._at: int | None = None
        self._leases: dict[int, weakref.ref[memoryview]] = {}

    def put(self, pieces: Sequence[bytes]) -> int:
        """The desk for the next item, with these pieces on it one behind the other."""
        if self._at is None:
            self._at = self._free.pop()
        start = self._at * DESK_BYTES
        for piece in pieces:
            self._pages[start : start + len(piece)] = piece
            start += len(piece)
        return self._at

    def picture(self, size: tuple[int, int]) -> Image.Image:
        """What the process left on that desk: in place, or a copy where all others are lent."""
        assert self._at is not None
        here = memoryview(self._pages)
        found = picture_on(here, size, self._at * DESK_BYTES)
        if not self._free:
            return found.copy()
        free, number = self._free, self._at
        self._leases[number] = weakref.ref(here, lambda _: free.append(number))
        self._at = None
        return found

    def close(self) -> None:
        """Free the memory: now, or with the last picture in it."""
        with suppress(BufferError):
            self._pages.close()


def shared_memory() -> int:
    """A descriptor of all desks of one process: both sides write to them, neither can shrink them.

    Memory that is taken away under its reader kills it.
    """
    fd = sealed.memory()
    os.ftruncate(fd, ALL_BYTES)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd


def picture_on(
    pages: mmap.mmap | memoryview | NDArray[np.uint8], size: tuple[int, int], start: int = 0
) -> Image.Image:
    """The RGB picture that the bytes from `start` are, four to a pixel as Pillow keeps them.

    Writing to one is writing to the other, so a decoder may fill it. It has `pages` as long as it
    lives, and so has whatever shares its pixels.
    """
    pixels = _core.map_buffer(pages, size, "raw", start, ("RGB", 0, 1))
    return Image.Image()._new(pixels)
