"""What decoder processes and their parent say to each other: JSON, files and results as memory.

One packet is one message. What is large lies in sealed anonymous memory whose descriptor travels
with the packet: nobody can change or shrink it any more, so the reader needs no copy of it. What
is small lies on a desk that both share, and is copied from there.
"""

from __future__ import annotations

import fcntl
import json
import math
import mmap
import os
import socket
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MOST_BYTES = 1 << 17
DESK_BYTES = 64 << 20
"""What lies on the desk that a process shares with its parent: a file up to this size on its way
there, a picture on its way back, of which telephones make 12 million pixels. Its pages are there
already; new ones cost more than a copy."""
MOST_PIXELS = DESK_BYTES // 4
"""Of a picture on the desk."""

_MOST_FDS = 4
_core: Any = Image.core  # type: ignore[attr-defined]
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL

Array = NDArray[Any]


class Malformed(Exception):
    """The other side said something that is no message."""


def send(link: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """The descriptors stay the caller's."""
    packet = json.dumps(message).encode()
    if len(packet) > MOST_BYTES:
        raise Malformed("message too long")
    socket.send_fds(link, [packet], list(fds))


def receive(link: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The message and descriptors that are now the caller's. EOFError when nobody is there."""
    packet, fds, flags, _ = socket.recv_fds(link, MOST_BYTES, _MOST_FDS)
    try:
        if not packet:
            raise EOFError
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise Malformed("message too long")
        message = json.loads(packet)
        if not isinstance(message, dict):
            raise Malformed("not an object")
    except (ValueError, RecursionError) as error:
        close(fds)
        raise Malformed("no JSON") from error
    except (EOFError, Malformed):
        close(fds)
        raise
    return message, fds


def close(fds: Sequence[int]) -> None:
    """Give descriptors back."""
    for fd in fds:
        os.close(fd)


def memory() -> int:
    """A descriptor of new anonymous memory."""
    return os.memfd_create("media", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def desk() -> int:
    """A descriptor of memory that both sides write to and neither can shrink."""
    fd = memory()
    os.ftruncate(fd, DESK_BYTES)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd


def picture_on(pages: mmap.mmap | Array, size: tuple[int, int]) -> Image.Image:
    """The RGB picture that the first bytes are, four to a pixel as Pillow keeps them.

    Writing to one is writing to the other, so a decoder may fill it, and a copy costs less than
    packing pixels and unpacking them again.
    """
    pixels = _core.map_buffer(pages, size, "raw", 0, ("RGB", 0, 1))
    return Image.new("RGB", (0, 0))._new(pixels)


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


def taken(place: int | mmap.mmap, sizes: Sequence[int]) -> list[bytes]:
    """The pieces that were put there, copied."""
    pieces = zip(sizes, accumulate(sizes, initial=0), strict=False)
    if isinstance(place, mmap.mmap):
        return [place[start : start + size] for size, start in pieces]
    return [os.pread(place, size, start) for size, start in pieces]


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
