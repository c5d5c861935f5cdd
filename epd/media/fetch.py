"""Fetching media: bounded in time, bytes, redirects, tries and reachable hosts and addresses.

Takes no proxies or credentials from the environment, and answers with reasons that name neither
addresses nor hosts.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpcore

from epd.config import FileLimits, MediaConfig
from epd.errors import BadMedia, TooLarge
from epd.media.deadline import Deadline
from epd.media.local import is_file_url, read_local
from epd.media.lookups import Lookups, Resolver, resolve
from epd.media.network import Guard
from epd.media.policy import Policy
from epd.media.url import Target, parse_url, redirected
from epd.types import Modality

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_FIRST_PAUSE_S = 0.1


class _Passing(Exception):
    """A failure that may be over at the next try. Its text is for the client."""


class Fetcher:
    """Fetches under one policy; any number of threads may share it."""

    def __init__(self, config: MediaConfig, *, resolver: Resolver = resolve) -> None:
        self._config = config
        self._policy = Policy(config)
        self._lookups = Lookups(resolver)
        self._tls = httpcore.default_ssl_context()

    def fetch(
        self, url: str, modality: Modality, *, wanted: Callable[[], bool] | None = None
    ) -> bytes:
        """The file behind an http, https or file: URL, within the limits of its modality.

        BadMedia or TooLarge have a reason for the client. `wanted` is asked every few hundredths
        of a second, from this thread: once it says no, everything is closed and Cancelled raised.
        """
        return self.fetch_within(url, self._config.limits(modality.value), wanted=wanted)

    def fetch_within(
        self, url: str, limits: FileLimits, *, wanted: Callable[[], bool] | None = None
    ) -> bytes:
        """Any file, within these limits."""
        if is_file_url(url):
            root = self._config.allowed_local_path
            return read_local(url, root, limits.max_bytes, wanted=wanted)
        target = parse_url(url)
        deadline = Deadline(limits.timeout_s, wanted)
        try:
            return self._persist(target, limits, deadline)
        except httpcore.TimeoutException:
            raise BadMedia(f"timed out after {limits.timeout_s:g} s") from None

    def _persist(self, target: Target, limits: FileLimits, deadline: Deadline) -> bytes:
        """From the first URL again after a lost connection or a fault of the server."""
        pause = _FIRST_PAUSE_S
        for tries_left in range(self._config.max_retries, -1, -1):
            try:
                return self._follow(target, limits, deadline)
            except _Passing as failure:
                last = BadMedia(str(failure))
            jittered = pause * random.uniform(0.5, 1.5)
            if not tries_left or not deadline.pause(jittered, httpcore.ConnectTimeout):
                break
            pause *= 2
        raise last

    def _follow(self, target: Target, limits: FileLimits, deadline: Deadline) -> bytes:
        guard = Guard(
            private=self._config.allow_private_addresses, lookups=self._lookups, deadline=deadline
        )
        for _ in range(self._config.max_redirects + 1):
            self._policy.check_hop(target)
            with _faults(guard):
                answer = self._get(target, limits, guard)
            if isinstance(answer, bytes):
                return answer
            target = redirected(target, answer)
        raise BadMedia(f"more than {self._config.max_redirects} redirects")

    def _get(self, target: Target, limits: FileLimits, guard: Guard) -> bytes | str:
        """One hop: the body, or where it says to go on."""
        origin = httpcore.Origin(target.scheme.encode(), target.host.encode(), target.port)
        url = httpcore.URL(
            scheme=target.scheme, host=target.host, port=target.port, target=target.path
        )
        headers: list[tuple[bytes | str, bytes | str]] = [
            ("Host", target.authority),
            ("User-Agent", "epd"),
            ("Accept", "*/*"),
            ("Accept-Encoding", "identity"),
            ("Connection", "close"),
        ]
        with (
            httpcore.HTTPConnection(
                origin, ssl_context=self._tls, network_backend=guard
            ) as connection,
            connection.stream("GET", url, headers=headers) as response,
        ):
            if response.status in _REDIRECTS and (location := _header(response, b"location")):
                return location
            if response.status >= 500:
                raise _Passing(f"HTTP {response.status}")
            if not 200 <= response.status < 300:
                raise BadMedia(f"HTTP {response.status}")
            return _body(response, limits.max_bytes)


@contextmanager
def _faults(guard: Guard) -> Iterator[None]:
    """The client's words for what went wrong on the way, except being late."""
    try:
        yield
    except httpcore.ConnectError as error:
        if isinstance(error.__cause__, ssl.SSLError):
            raise BadMedia("TLS failed") from None
        raise _Passing("could not connect") from None
    except httpcore.NetworkError:
        raise _Passing("connection lost") from None
    except httpcore.ProtocolError:
        text = "no valid HTTP answer, or one cut short"
        raise (_Passing if guard.hung_up else BadMedia)(text) from None


def _body(response: httpcore.Response, limit: int) -> bytes:
    """Counts what arrives: the announced length is a hint that may only refuse early."""
    too_large = TooLarge(f"file larger than {limit} bytes")
    announced = _header(response, b"content-length")
    if announced.isdecimal() and int(announced) > limit:
        raise too_large
    body = bytearray()
    for chunk in response.iter_stream():
        body += chunk
        if len(body) > limit:
            raise too_large
    return bytes(body)


def _header(response: httpcore.Response, name: bytes) -> str:
    for key, value in response.headers:
        if key.lower() == name:
            return value.decode("latin-1")
    return ""
