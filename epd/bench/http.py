"""HTTP/1.1 for load: connections that note when bytes came before anything is made of them.

Clients for general use put tasks, queues and validation between a socket and its reader, and cost
more than a millisecond per request; at hundreds of requests per second their own waiting is in the
times they report. Here a piece of an answer has its time from the callback that the event loop
makes when the socket is readable.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit

from epd.bench.responses import BadResponse, Response

WRITE_BYTES = 1 << 20
"""Of a body at a time; the next go when the socket has taken these."""

Hear = Callable[[float, bytes], None]
"""Called with the moment at which bytes of a body came, and these."""


class Lost(ConnectionError):
    """The server closed the connection before its answer was whole."""


class Connection(asyncio.Protocol):
    """One request after the other."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._response: Response | None = None
        self._hear: Hear
        self._done: asyncio.Future[Response]
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    @property
    def busy(self) -> bool:
        """Its answer is still to come."""
        return self._response is not None

    async def ask(self, pieces: Sequence[bytes], hear: Hear) -> Response:
        """Send a whole request; its answer when that is whole, too."""
        self._response, self._hear = Response(), hear
        self._done = asyncio.get_running_loop().create_future()
        for piece in pieces:
            view = memoryview(piece)
            for start in range(0, len(view), WRITE_BYTES):
                await self._may_write.wait()
                if self._done.done():  # refused before it was read: the rest is not sent
                    self.lost = True
                    return self._done.result()
                self._transport.write(view[start : start + WRITE_BYTES])
        return await self._done

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        response = self._response
        if response is None:
            self._transport.abort()
            return
        try:
            body = response.feed(data)
            if body:
                self._hear(now, body)
        except ValueError as error:
            self._fail(error)
            self._transport.abort()
            return
        if response.done:
            self._finish(response)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._may_write.set()
        if self._response is not None and self._response.end():
            self._finish(self._response)
        elif self._response is not None and self._response.status:
            self._fail(BadResponse("the connection was closed within the answer"))
        elif self._response is not None:
            self._fail(Lost(str(exc or "the connection was closed without an answer")))

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def close(self) -> None:
        """No more requests; one under way gets no answer."""
        self._transport.abort()

    def _finish(self, response: Response) -> None:
        self._response = None
        self._may_write.set()
        self.lost = self.lost or not response.keeps
        if not self._done.done():
            self._done.set_result(response)

    def _fail(self, error: Exception) -> None:
        self._response = None
        self.lost = True
        self._may_write.set()
        if not self._done.done():
            self._done.set_exception(error)


class Client:
    """POSTs to one server over as many connections as there are requests at once."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None, url
        self._host = parts.hostname
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._path = parts.path.rstrip("/")
        self._head = "".join(
            f"{name}: {value}\r\n" for name, value in {"Host": parts.netloc, **headers}.items()
        )
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()

    async def post(self, path: str, body: Sequence[bytes], hear: Hear) -> Response:
        """`hear` gets what comes back.

        An idle connection may have been closed while the request was on its way to it: then it is
        sent again. OSError, BadResponse: there is no whole answer.
        """
        size = sum(map(len, body))
        head = f"POST {self._path}{path} HTTP/1.1\r\n{self._head}Content-Length: {size}\r\n\r\n"
        pieces = [head.encode("latin-1"), *body]
        while True:
            used = self._take()
            connection = used or await self._open()
            try:
                response = await connection.ask(pieces, hear)
            except Lost:
                if used is None:
                    raise
                continue
            finally:
                self._give(connection)
            return response

    def close(self) -> None:
        """Of all connections."""
        for connection in self._all:
            connection.close()

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.lost:
                return connection
        return None

    async def _open(self) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(
            Connection, self._host, self._port, ssl=self._tls
        )
        self._all.add(connection)
        return connection

    def _give(self, connection: Connection) -> None:
        """A connection whose answer is not whole is of no use to the next request."""
        if connection.lost or connection.busy:
            connection.close()
            self._all.discard(connection)
        else:
            self._idle.append(connection)
