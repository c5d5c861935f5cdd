"""Servers that answer strangely, and names that mean this machine: never another error."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from epd.config import MediaConfig
from epd.config.media import ImageLimits, VideoLimits
from epd.errors import BadMedia, EpdError, TooLarge
from epd.media import Fetcher
from epd.types import Modality
from tests.media.site import Site, body, redirect

CONFIG = MediaConfig(
    allow_private_addresses=True,
    max_retries=0,
    image=ImageLimits(timeout_s=2, max_bytes=1000),
    video=VideoLimits(timeout_s=2, max_bytes=2000),
)


@contextmanager
def answering(first: bytes, *, again: bytes = b"") -> Iterator[str]:
    """The URL of a port that sends `first`, then `again` for as long as anybody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, contextlib.suppress(ConnectionError, TimeoutError):
                        connection.settimeout(10)
                        connection.recv(65536)
                        connection.sendall(first)
                        while again:
                            connection.sendall(again)
                        connection.shutdown(socket.SHUT_WR)
                        while connection.recv(65536):
                            pass

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def outcome(url: str, modality: Modality = Modality.IMAGE) -> str:
    """The text of the refusal, or what arrived."""
    try:
        return Fetcher(CONFIG).fetch(url, modality).decode("latin-1")
    except (BadMedia, TooLarge) as error:
        assert "127.0.0.1" not in error.message
        return error.message


OK = b"HTTP/1.1 200 OK\r\n"
BROKEN = "no valid HTTP answer, or one cut short"
ODD = "URL with a space, a control character or a backslash"
ANSWERS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", BROKEN),
    "http/0.9": (b"<html>picture</html>", BROKEN),
    "http/2": (b"HTTP/2 200 OK\r\n\r\n", BROKEN),
    "status not a number": (b"HTTP/1.1 OK OK\r\n\r\n", BROKEN),
    "status of six hundred": (b"HTTP/1.1 666 Evil\r\nContent-Length: 0\r\n\r\n", "HTTP 666"),
    "until the end": (OK + b"\r\nall", "all"),
    "no length, no body": (OK + b"\r\n", ""),
    "length negative": (OK + b"Content-Length: -1\r\n\r\nx", BROKEN),
    "length in words": (OK + b"Content-Length: one\r\n\r\nx", BROKEN),
    "length of many digits": (OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nx", BROKEN),
    "length in other digits": (OK + "Content-Length: \u00b2\r\n\r\nx".encode("latin-1"), BROKEN),
    "lengths that differ": (OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx", BROKEN),
    "chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nal\r\n1\r\nl\r\n0\r\n\r\n", "all"),
    "chunks without end": (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nal\r\n", BROKEN),
    "chunk of huge size": (OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 20, BROKEN),
    "chunk of no size": (OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", BROKEN),
    "unknown encoding": (OK + b"Transfer-Encoding: gzip\r\n\r\nx", BROKEN),
    "header without colon": (OK + b"Nonsense\r\n\r\nx", BROKEN),
    "switching protocols": (
        b"HTTP/1.1 101 Go\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nx",
        BROKEN,
    ),
    "redirect without target": (b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", "HTTP 302"),
    "redirect to nothing": (
        b"HTTP/1.1 302 Found\r\nLocation: http://\r\n\r\n",
        "more than 3 redirects",
    ),
    "redirect to bytes": (b"HTTP/1.1 302 Found\r\nLocation: \xff\xfe://\xa0\r\n\r\n", ODD),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_an_odd_answer_gives_the_file_or_a_reason(kind: str) -> None:
    answer, expected = ANSWERS[kind]
    with answering(answer) as url:
        assert outcome(url) == expected


@pytest.mark.parametrize(
    ("first", "again", "reasons"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-Header: " + b"x" * 1000 + b"\r\n", BROKEN),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", "timed out after 2 s"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", "larger than 1000 bytes"),
        (OK + b"\r\n", b"x", "larger than 1000 bytes"),
    ],
    ids=["headers", "interim answers", "chunks", "bytes"],
)
def test_an_endless_answer_ends(first: bytes, again: bytes, reasons: str) -> None:
    """By size or by time."""
    with answering(first, again=again) as url:
        assert reasons in outcome(url)


def test_each_modality_has_its_own_limits(site: Site) -> None:
    """What is too large for a picture may be a small video."""
    site.pages["/"] = body(b"x" * 1500)
    assert outcome(site.url) == "file larger than 1000 bytes"
    assert len(outcome(site.url, Modality.VIDEO)) == 1500


LOOPBACK = [
    "127.0.0.1",
    "localhost",
    "LOCALHOST.",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "017700000001",
    "127.000.000.001",
    "0",
    "0.0.0.0",
    "[::]",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::127.0.0.1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460",
    "\uff11\uff12\uff17.0.0.1",
    "127\u30020\u30020\u30021",
]


@pytest.mark.parametrize("host", LOOPBACK)
def test_no_writing_of_loopback_is_connected_to(host: str, site: Site) -> None:
    """Directly or behind a redirect. The control: with the operator's leave the plain ones are."""
    site.pages["/"] = body(b"secret")
    site.pages["/to"] = redirect(
        f"http://{host.encode('idna').decode() if not host.isascii() else host}:{site.port}/"
    )
    strict = Fetcher(MediaConfig(max_retries=0))
    with pytest.raises(EpdError) as caught:
        strict.fetch(f"http://{host}:{site.port}/", Modality.IMAGE)
    assert caught.value.status == 422
    assert "127" not in caught.value.message
    assert site.seen == []
    if "127.0.0.1" in host and not host.startswith("[::127"):
        assert outcome(f"http://{host}:{site.port}/") == "secret"


@pytest.mark.parametrize(
    "host",
    ["169.254.169.254", "2852039166", "0xa9fea9fe", "[::ffff:169.254.169.254]", "[fd00:ec2::254]"],
)
def test_metadata_services_stay_refused_with_the_operators_leave(host: str, site: Site) -> None:
    """Directly and behind a redirect of an allowed site."""
    assert outcome(f"http://{host}/latest/meta-data/") == "address not allowed"
    site.pages["/"] = redirect(f"http://{host}/latest/meta-data/")
    assert outcome(site.url) == "address not allowed"
    assert len(site.seen) == 1


def test_lookups_that_hang_cost_a_limited_number_of_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Further ones wait for room, and time out."""
    from epd.media import lookups

    monkeypatch.setattr(lookups, "_MOST", 2)
    released = threading.Event()
    asked: list[str] = []

    def hanging(host: str, port: int) -> list[str]:
        asked.append(host)
        released.wait(60)
        return []

    config = MediaConfig(image=ImageLimits(timeout_s=0.1))
    fetcher = Fetcher(config, resolver=hanging)
    try:
        for number in range(5):
            with pytest.raises(BadMedia, match="timed out"):
                fetcher.fetch(f"http://{number}.example/", Modality.IMAGE)
    finally:
        released.set()
    assert len(asked) == 2
