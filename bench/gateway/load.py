"""Clients that cost little: bytes are counted and searched for an answer's end, and not parsed."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

EVENT = b"data: {"
STREAM_END = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer: seconds to its first byte of a body and to its end."""

    first_s: float
    whole_s: float
    events: int


class _Connection(asyncio.Protocol):
    """One answer after the other over one connection."""

    def __init__(self, request: bytes, *, stream: bool) -> None:
        self._request = request
        self._stream = stream
        self._transport: asyncio.Transport
        self._tail = b""
        self._sent = self._first = 0.0
        self._events = 0
        self.done: asyncio.Future[Answered]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def ask(self) -> asyncio.Future[Answered]:
        self.done = asyncio.get_running_loop().create_future()
        self._tail, self._events, self._first = b"", 0, 0.0
        self._sent = time.perf_counter()
        self._transport.write(self._request)
        return self.done

    def data_received(self, data: bytes) -> None:
        if not self._first:
            self._first = time.perf_counter()
            if not data.startswith(b"HTTP/1.1 200"):
                self.done.set_exception(RuntimeError(data[:500].decode(errors="replace")))
                return
        if self._stream:
            self._events += data.count(EVENT)
            self._tail = (self._tail + data)[-len(STREAM_END) :]
            ended = self._tail == STREAM_END
        else:
            self._tail += data
            head, _, body = self._tail.partition(b"\r\n\r\n")
            ended = bool(body) and len(body) >= _length(head)
        if ended and not self.done.done():
            now = time.perf_counter()
            self.done.set_result(Answered(self._first - self._sent, now - self._sent, self._events))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed the connection"))

    def close(self) -> None:
        self._transport.close()


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return int(value)
    raise RuntimeError("an answer without a length")


async def ask(
    url: str, body: bytes, *, stream: bool, clients: int, requests: int
) -> list[Answered]:
    """`requests` in all from so many clients, each asking again when it was answered."""
    parts = urlsplit(url)
    host, port = parts.hostname, parts.port
    assert host is not None and port is not None
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    left = iter(range(requests))
    found: list[Answered] = []

    async def client() -> None:
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: _Connection(head.encode() + body, stream=stream), host, port
        )
        try:
            for _ in left:
                found.append(await connection.ask())
        finally:
            connection.close()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(min(clients, requests)):
            tasks.create_task(client())
    return found
