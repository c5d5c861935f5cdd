"""Which failures are tried again, how often, and within which time."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import pytest

from epd.config import MediaConfig
from epd.config.media import ImageLimits
from epd.errors import BadMedia
from epd.media import Fetcher
from epd.types import Modality
from tests.media.site import Page, Site, body, redirect, status

PRIVATE = MediaConfig(allow_private_addresses=True)


def fetch(url: str, config: MediaConfig = PRIVATE) -> bytes:
    """As a picture."""
    return Fetcher(config).fetch(url, Modality.IMAGE)


def in_turn(*pages: Page) -> Page:
    """Another answer each time."""
    rest = iter(pages)
    return lambda handler: next(rest)(handler)


def reset(handler: BaseHTTPRequestHandler) -> None:
    """No answer: the connection ends."""
    handler.close_connection = True


@pytest.mark.parametrize("fault", [status(500), status(503), reset, body(b"half", length=9)])
def test_a_passing_fault_is_tried_again(site: Site, fault: Page) -> None:
    """A fault of the server, a lost connection, and one lost in the middle of the file."""
    site.pages["/"] = in_turn(fault, fault, body(b"there"))
    assert fetch(site.url) == b"there"
    assert len(site.seen) == 3


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(status(502), "HTTP 502"), (reset, "no valid HTTP answer, or one cut short")],
)
def test_the_tries_are_limited_and_the_last_fault_is_named(
    site: Site, fault: Page, reason: str
) -> None:
    """As often as the operator says, and once without a leave."""
    for tries in (1, 3):
        site.seen.clear()
        site.pages["/"] = fault
        config = MediaConfig(allow_private_addresses=True, max_retries=tries - 1)
        with pytest.raises(BadMedia) as caught:
            fetch(site.url, config)
        assert caught.value.message == reason
        assert len(site.seen) == tries


@pytest.mark.parametrize("code", [400, 401, 403, 404, 408, 410, 429])
def test_what_the_server_refuses_is_not_tried_again(site: Site, code: int) -> None:
    """429 neither: asking a busy server more often helps nobody, and the client can wait."""
    site.pages["/"] = status(code)
    with pytest.raises(BadMedia, match=f"HTTP {code}"):
        fetch(site.url)
    assert len(site.seen) == 1


def test_what_is_not_http_or_not_tls_is_not_tried_again(site: Site) -> None:
    with not_http() as (url, seen):
        with pytest.raises(BadMedia, match="no valid HTTP answer"):
            fetch(url)
        assert len(seen) == 1
    with pytest.raises(BadMedia, match="TLS failed"):
        fetch(site.url.replace("http:", "https:"))


@contextmanager
def not_http() -> Iterator[tuple[str, list[object]]]:
    """Something that answers in another protocol and keeps the connection."""
    import threading

    seen: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            try:
                while True:
                    connection, _ = server.accept()
                    seen.append(connection)
                    connection.sendall(b"SSH-2.0-x\r\n\r\n")
            except OSError:
                pass

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/", seen
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in seen:
                connection.close()  # type: ignore[attr-defined]


def test_a_fault_behind_a_redirect_starts_from_the_first_url_again(site: Site) -> None:
    """What a redirect points to may be made for one visit."""
    site.pages["/"] = in_turn(redirect("/a"), redirect("/b"))
    site.pages["/a"] = status(503)
    site.pages["/b"] = body(b"there")
    assert fetch(site.url) == b"there"
    assert [path for path, _ in site.seen] == ["/", "/a", "/", "/b"]


def test_all_tries_share_one_deadline(site: Site) -> None:
    """Where no time is left for another one, the fault is named at once, not the time."""
    site.pages["/"] = status(500)
    config = MediaConfig(
        allow_private_addresses=True, max_retries=1000, image=ImageLimits(timeout_s=0.5)
    )
    began = time.monotonic()
    with pytest.raises(BadMedia, match="HTTP 500"):
        fetch(site.url, config)
    assert time.monotonic() - began < 5
    assert len(site.seen) < 8  # the pauses grow


def test_a_name_service_that_fails_for_now_is_asked_again(site: Site) -> None:
    """One that knows the name not to exist is believed."""
    site.pages["/"] = body(b"there")
    asked: list[str] = []

    def resolver(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        if host == "no.example":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if len(asked) == 1:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return ["127.0.0.1"]

    fetcher = Fetcher(PRIVATE, resolver=resolver)
    url = f"http://some.example:{site.port}/"
    assert fetcher.fetch(url, Modality.IMAGE) == b"there"
    with pytest.raises(BadMedia, match="host not found"):
        fetcher.fetch("http://no.example/", Modality.IMAGE)
    assert asked == ["some.example", "some.example", "no.example"]
