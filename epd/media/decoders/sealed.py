"""What is too large for a desk, or no picture: sealed anonymous memory.

Its descriptor travels with a message. Nobody can change or shrink it any more, so the reader needs
no copy of it.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epd.media.decoders.link import Malformed

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL

Array = NDArray[Any]


def memory() -> int:
    """A descriptor of new anonymous memory."""
    return os.memfd_create("media", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def seal(fd: int) -> None:
    """No byte changes any more; no writable mapping may be left."""
    if not os.fstat(fd).st_size:
        os.ftruncate(fd, 1)  # nothing cannot be mapped
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)


def write(fd: int, data: bytes | memoryview) -> None:
    """All of it."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def put(pieces: Sequence[bytes]) -> int:
    """Sealed memory with the pieces one behind the other."""
    fd = memory()
    for piece in pieces:
        write(fd, piece)
    seal(fd)
    return fd


def taken(fd: int, sizes: Sequence[int]) -> list[bytes]:
    """The pieces that were put there, copied."""
    starts = accumulate(sizes, initial=0)
    return [os.pread(fd, size, start) for size, start in zip(sizes, starts, strict=False)]


def mapped(fd: int, shape: Any, *, dtype: str, dimensions: int, most: int) -> Array:
    """An array in somebody else's sealed memory; writes stay private.

    Malformed unless the memory is as large as `shape` says, with no more than `most` values.
    """
    lengths = checked_shape(shape, dimensions)
    count = math.prod(lengths)
    size = max(1, count * np.dtype(dtype).itemsize)
    if count > most or os.fstat(fd).st_size != size:
        raise Malformed("size")
    if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
        raise Malformed("memory that can change")
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    pages = mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE, prot=protection)
    return np.frombuffer(pages, dtype, count).reshape(lengths)


def checked_shape(shape: Any, dimensions: int) -> list[int]:
    """Lengths that an array can have."""
    if not isinstance(shape, list) or len(shape) != dimensions:
        raise Malformed("dimensions")
    if not all(type(length) is int and length >= 0 for length in shape):
        raise Malformed("shape")
    return shape
