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

MOST_BYTES = 1 << 17
DESK_BYTES = 32 << 20
"""What lies on the desk that a process shares with its parent: a file up to this size on its way
there, a picture on its way back. Its pages are there already; new ones cost more than a copy."""
MOST_PIXEL_BYTES = DESK_BYTES - 64
"""Of a picture on the desk, behind its header."""

_MOST_FDS = 4
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
    """The pieces that were put there."""
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
