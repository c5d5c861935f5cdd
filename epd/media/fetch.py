"""Fetching media over http and https: bounded in time, bytes, redirects and reachable addresses.

Takes no proxies or credentials from the environment, and answers with reasons that name neither
addresses nor hosts.
"""

from __future__ import annotations

import ssl

import httpcore

from epd.config import MediaConfig
from epd.errors import BadMedia, TooLarge
from epd.media.network import Deadline, Guard, Resolver, resolve
from epd.media.url import Target, parse_url, redirected

_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Fetcher:
    """Fetches under one policy; any number of threads may share it."""

    def __init__(self, config: MediaConfig, *, resolver: Resolver = resolve) -> None:
        self._config = config
        self._resolver = resolver
        self._tls = httpcore.default_ssl_context()

    def fetch(self, url: str) -> bytes:
        """The file behind `url`; BadMedia or TooLarge with a reason for the client."""
        seconds = self._config.image.timeout_s
        guard = Guard(
            private=self._config.allow_private_addresses,
            resolver=self._resolver,
            deadline=Deadline(seconds),
        )
        try:
            return self._follow(parse_url(url), guard)
        except httpcore.TimeoutException:
            raise BadMedia(f"timed out after {seconds:g} s") from None
        except httpcore.ConnectError as error:
            broken_tls = isinstance(error.__cause__, ssl.SSLError)
            raise BadMedia("TLS failed" if broken_tls else "could not connect") from None
        except httpcore.NetworkError:
            raise BadMedia("connection lost") from None
        except httpcore.ProtocolError:
            raise BadMedia("no valid HTTP answer, or one cut short") from None

    def _follow(self, target: Target, guard: Guard) -> bytes:
        for _ in range(self._config.max_redirects + 1):
            answer = self._get(target, guard)
            if isinstance(answer, bytes):
                return answer
            target = redirected(target, answer)
        raise BadMedia(f"more than {self._config.max_redirects} redirects")

    def _get(self, target: Target, guard: Guard) -> bytes | str:
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
            if not 200 <= response.status < 300:
                raise BadMedia(f"HTTP {response.status}")
            return self._body(response)

    def _body(self, response: httpcore.Response) -> bytes:
        """Counts what arrives: the announced length is a hint that may only refuse early."""
        limit = self._config.image.max_bytes
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
