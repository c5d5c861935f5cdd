"""The network under the fetcher: resolves, checks, connects to exactly what was checked.

One Guard serves one fetch and its redirects. Sockets never block: every wait of a fetch goes
through its Deadline, which also ends it when nobody wants the file any more.
"""

from __future__ import annotations

import errno
import select
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import httpcore

from epd.errors import BadMedia
from epd.media.addresses import allowed
from epd.media.deadline import Deadline
from epd.media.lookups import Lookups

T = TypeVar("T")


class Guard(httpcore.NetworkBackend):
    """Connects by name, but only to addresses that the policy allows."""

    def __init__(self, *, private: bool, lookups: Lookups, deadline: Deadline) -> None:
        self._private = private
        self._lookups = lookups
        self._deadline = deadline
        self._last: _Stream | None = None

    @property
    def hung_up(self) -> bool:
        """Whether the server has ended the last connection."""
        return self._last is not None and self._last.ended

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Resolve once, check, then connect to a checked number: nothing is resolved again."""
        found = self._lookups.addresses(host, port, self._deadline)
        addresses = [address for address in found if allowed(address, private=self._private)]
        if not addresses:
            raise BadMedia("address not allowed")
        for index, address in enumerate(addresses):
            share = self._deadline.left(httpcore.ConnectTimeout) / (len(addresses) - index)
            try:
                self._last = _connected(address, port, share, self._deadline)
                return self._last
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


def _connected(address: str, port: int, share: float, deadline: Deadline) -> _Stream:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    stream = _Stream(socket.socket(family, socket.SOCK_STREAM), deadline)
    try:
        stream.connect(address, port, share)
    except BaseException:
        stream.close()
        raise
    return stream


class _Stream(httpcore.NetworkStream):
    """A socket whose every wait ends at the deadline, however slowly bytes trickle in."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._socket = sock
        self._deadline = deadline
        self.ended = False
        sock.setblocking(False)

    def connect(self, address: str, port: int, share: float) -> None:
        """To a number, within a share of the deadline."""
        code = self._socket.connect_ex((address, port))
        if code == errno.EINPROGRESS:
            self._wait(select.POLLOUT, httpcore.ConnectTimeout, within=share)
            code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise httpcore.ConnectError(errno.errorcode.get(code, str(code)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = self._until_done(
            lambda: self._socket.recv(max_bytes),
            select.POLLIN,
            late=httpcore.ReadTimeout,
            broken=httpcore.ReadError,
        )
        self.ended = not data
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        rest = memoryview(buffer)
        while rest:
            sent = self._until_done(
                lambda rest=rest: self._socket.send(rest),  # type: ignore[misc]
                select.POLLOUT,
                late=httpcore.WriteTimeout,
                broken=httpcore.WriteError,
            )
            rest = rest[sent:]

    def close(self) -> None:
        self._socket.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        try:
            secured = ssl_context.wrap_socket(
                self._socket, server_hostname=server_hostname, do_handshake_on_connect=False
            )
            self._socket = secured
            self._until_done(
                secured.do_handshake,
                select.POLLIN,
                late=httpcore.ConnectTimeout,
                broken=httpcore.ConnectError,
            )
        except BaseException:
            self.close()
            raise
        return self

    def _until_done(
        self,
        call: Callable[[], T],
        events: int,
        *,
        late: type[Exception],
        broken: type[Exception],
    ) -> T:
        """Repeat a call that would block, waiting for the socket in between."""
        while True:
            self._deadline.left(late)
            try:
                return call()
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
                wants = error
            except OSError as error:
                raise broken(type(error).__name__) from error
            if isinstance(wants, ssl.SSLError):
                writing = isinstance(wants, ssl.SSLWantWriteError)
                events = select.POLLOUT if writing else select.POLLIN
            self._wait(events, late)

    def _wait(self, events: int, error: type[Exception], within: float | None = None) -> None:
        poll = select.poll()
        poll.register(self._socket, events)
        self._deadline.until(lambda seconds: bool(poll.poll(seconds * 1000)), error, within)
