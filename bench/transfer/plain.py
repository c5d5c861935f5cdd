"""What bytes cost alone: one TCP connection, one copy in memory. Warm buffers, no framing.

And what they cost in ZeroMQ alone: its two threads at each end, and no Python but a loop.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable

import torch
import zmq

REQUEST = struct.Struct("!Q")


class PlainServer:
    """Sends as many bytes as it is asked for, from one buffer, on a thread of its own."""

    def __init__(self, address: str, num_bytes: int) -> None:
        self._buffer = memoryview(torch.ones(num_bytes, dtype=torch.uint8).numpy().data)
        self._listener = socket.create_server((address, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            while request := connection.recv(REQUEST.size, socket.MSG_WAITALL):
                connection.sendall(self._buffer[: REQUEST.unpack(request)[0]])


def tcp(address: str, port: int, num_bytes: int) -> Callable[[int], float]:
    """Seconds to ask a PlainServer for so many bytes, at most `num_bytes`, and have them."""
    buffer = memoryview(torch.ones(num_bytes, dtype=torch.uint8).numpy().data)
    connection = socket.create_connection((address, port))

    def seconds(num: int) -> float:
        began = time.perf_counter()
        connection.sendall(REQUEST.pack(num))
        got = 0
        while got < num:
            got += connection.recv_into(buffer[got:num])
        return time.perf_counter() - began

    return seconds


class ZmqServer:
    """The same with messages of `chunk` bytes, taken from the buffer where they are."""

    def __init__(self, address: str, num_bytes: int, chunk: int) -> None:
        self._buffer = memoryview(torch.ones(num_bytes, dtype=torch.uint8).numpy().data)
        self._chunk = chunk
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
        self._socket.set(zmq.LINGER, 0)
        self._socket.bind(f"tcp://{address}:*")
        self.port = int(self._socket.get_string(zmq.LAST_ENDPOINT).rstrip("\0").rpartition(":")[2])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            client, request = self._socket.recv_multipart()
            (num,) = REQUEST.unpack(request)
            for first in range(0, num, self._chunk):
                part = self._buffer[first : min(num, first + self._chunk)]
                self._socket.send_multipart([client, part], copy=False)


def over_zmq(address: str, port: int) -> Callable[[int], float]:
    """Seconds to ask a ZmqServer for so many bytes and have them, kept as rows are."""
    asks: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    asks.set(zmq.LINGER, 0)
    asks.connect(f"tcp://{address}:{port}")

    def seconds(num: int) -> float:
        frames = []
        began = time.perf_counter()
        asks.send(REQUEST.pack(num))
        got = 0
        while got < num:
            frames.append(asks.recv(copy=False))
            got += len(frames[-1].buffer)
        return time.perf_counter() - began

    return seconds


def memcpy(num_bytes: int) -> Callable[[int], float]:
    """Seconds to copy so many bytes once."""
    source, target = (torch.ones(num_bytes, dtype=torch.uint8) for _ in range(2))

    def seconds(num: int) -> float:
        began = time.perf_counter()
        target[:num].copy_(source[:num])
        return time.perf_counter() - began

    return seconds
