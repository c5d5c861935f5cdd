"""The network under the fetcher: resolves, checks, connects to exactly what was checked.

One Guard serves one fetch and its redirects and carries the fetch's deadline into every read.
"""

from __future__ import annotations

import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import httpcore

from epd.errors import BadMedia
from epd.media.addresses import allowed

Resolver = Callable[[str, int], Sequence[str]]


def resolve(host: str, port: int) -> list[str]:
    """Numeric addresses of a host name, best first."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


class Deadline:
    """A moment that all waits of one fetch share."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    def left(self, error: type[Exception]) -> float:
        """Seconds until then; raises `error` when it has passed."""
        left = self._at - time.monotonic()
        if left <= 0:
            raise error("deadline")
        return left


class Guard(httpcore.NetworkBackend):
    """Connects by name, but only to addresses that the policy allows."""

    def __init__(self, *, private: bool, resolver: Resolver, deadline: Deadline) -> None:
        self._private = private
        self._resolver = resolver
        self._deadline = deadline
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Resolve once, check, then connect to a checked number: nothing is resolved again."""
        addresses = [a for a in self._resolve(host, port) if allowed(a, private=self._private)]
        if not addresses:
            raise BadMedia("address not allowed")
        for index, address in enumerate(addresses):
            share = self._deadline.left(httpcore.ConnectTimeout) / (len(addresses) - index)
            try:
                stream = self._sockets.connect_tcp(
                    address, port, timeout=share, socket_options=socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _DeadlineStream(stream, self._deadline)
        raise failure

    def _resolve(self, host: str, port: int) -> Sequence[str]:
        """The system's resolver knows no timeout, so it runs on a thread to leave behind."""
        answer: queue.SimpleQueue[Sequence[str]] = queue.SimpleQueue()

        def ask() -> None:
            try:
                answer.put(self._resolver(host, port))
            except (OSError, UnicodeError):
                answer.put(())

        threading.Thread(target=ask, name="resolve", daemon=True).start()
        try:
            addresses = answer.get(timeout=self._deadline.left(httpcore.ConnectTimeout))
        except queue.Empty:
            raise httpcore.ConnectTimeout("deadline") from None
        if not addresses:
            raise BadMedia("host not found")
        return addresses


class _DeadlineStream(httpcore.NetworkStream):
    """A stream whose every wait ends at the deadline, however slowly bytes trickle in."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.left(httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.left(httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        left = self._deadline.left(httpcore.ConnectTimeout)
        secured = self._stream.start_tls(ssl_context, server_hostname, left)
        return _DeadlineStream(secured, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
