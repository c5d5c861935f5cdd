"""A connection between a decoder process and its parent. One packet is one message, in msgpack.

Items may be short, and so is all that is done for each: one call of the kernel sends a message and
one waits for it, into memory that is there already. Code that was not used for a millisecond has
left the caches and costs ten times what it costs in a loop, so there is little of it.
"""

from __future__ import annotations

import array
import os
import select
import socket
import struct
from collections.abc import Sequence
from typing import Any

import msgpack

MOST_BYTES = 1 << 17
_MOST_FDS = 4
_FDS_BYTES = socket.CMSG_LEN(_MOST_FDS * array.array("i").itemsize)
_CUT = int(socket.MSG_TRUNC | socket.MSG_CTRUNC)  # its enum takes as long as the kernel


class Malformed(Exception):
    """The other side said something that is no message."""


class Link:
    """One end. For one thread at a time."""

    def __init__(self, end: socket.socket) -> None:
        """Of a pair of sockets that keep packets apart."""
        self._end = end
        self._room = memoryview(bytearray(MOST_BYTES))
        self._pack = msgpack.Packer(buf_size=MOST_BYTES).pack
        self._hangup = select.poll()
        self._hangup.register(end, 0)
        self._seconds = 0.0

    @property
    def alive(self) -> bool:
        """Whether there is somebody at the other end."""
        return not self._hangup.poll(0)

    def allow(self, seconds: float) -> None:
        """How long sending and receiving may wait from now on, each; else TimeoutError.

        The kernel keeps it: a timeout of Python's would cost two more calls for each message.
        """
        if seconds == self._seconds:
            return
        self._seconds = seconds
        interval = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
        self._end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, interval)
        self._end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)

    def send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """The descriptors stay the caller's."""
        packet = self._pack(message)
        if len(packet) > MOST_BYTES:
            raise Malformed("message too long")
        try:
            if fds:
                socket.send_fds(self._end, [packet], list(fds))
            else:
                self._end.send(packet)
        except BlockingIOError as error:
            raise TimeoutError from error

    def receive(self) -> tuple[dict[str, Any], list[int]]:
        """The message and descriptors that are now the caller's. EOFError when nobody is there."""
        try:
            size, ancillary, flags, _ = self._end.recvmsg_into([self._room], _FDS_BYTES)
        except BlockingIOError as error:
            raise TimeoutError from error
        fds = _descriptors(ancillary) if ancillary else []
        try:
            return _read(self._room[:size], flags), fds
        except (EOFError, Malformed):
            close(fds)
            raise

    def close(self) -> None:
        """Nothing is sent or received any more."""
        self._end.close()


def close(fds: Sequence[int]) -> None:
    """Give descriptors back."""
    for fd in fds:
        os.close(fd)


def _descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)


def _read(packet: memoryview, flags: int) -> dict[str, Any]:
    if not packet:
        raise EOFError
    if flags & _CUT:
        raise Malformed("message too long")
    try:
        message = msgpack.unpackb(packet)
    except ValueError as error:
        raise Malformed("no msgpack") from error
    if not isinstance(message, dict):
        raise Malformed("no map")
    return message
