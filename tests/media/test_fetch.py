"""The fetcher over real sockets: what it brings, what it refuses, what it says about it."""

from __future__ import annotations

import errno
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from epd.config import MediaConfig
from epd.config.media import ImageLimits
from epd.errors import BadMedia, EpdError, TooLarge
from epd.media import Fetcher
from epd.types import Modality
from tests.media.site import Site, body, endless, redirect, status

PRIVATE = MediaConfig(allow_private_addresses=True)


def reason(fetcher: Fetcher, url: str) -> str:
    """The text of the refusal."""
    with pytest.raises(EpdError) as caught:
        fetcher.fetch(url, Modality.IMAGE)
    assert isinstance(caught.value, BadMedia | TooLarge)
    return caught.value.message


def test_a_file_arrives_whole(site: Site) -> None:
    """Path and query reach the server as they were written."""
    data = bytes(range(256)) * 1000
    site.pages["/a%20b.png?x=1&y=%2F"] = body(data)
    assert Fetcher(PRIVATE).fetch(f"{site.url}/a%20b.png?x=1&y=%2F#part", Modality.IMAGE) == data


def test_a_host_name_is_resolved_once_and_kept_in_the_host_header(site: Site) -> None:
    """The connection goes to the checked number, the server still sees the name."""
    asked: list[str] = []

    def resolver(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"]

    site.pages["/"] = body(b"ok")
    url = f"http://pictures.example:{site.port}"
    assert Fetcher(PRIVATE, resolver=resolver).fetch(url, Modality.IMAGE) == b"ok"
    assert asked == ["pictures.example"]
    assert site.seen == [("/", f"pictures.example:{site.port}")]


def test_loopback_is_refused_by_default_without_a_connection(site: Site) -> None:
    """The server never hears of it."""
    site.pages["/"] = body(b"secret")
    for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "127.1"):
        text = reason(Fetcher(MediaConfig()), f"http://{host}:{site.port}/")
        assert text == "address not allowed"
    assert site.seen == []


def test_a_redirect_to_a_forbidden_address_is_refused(site: Site) -> None:
    """The first hop is allowed; the second is checked like the first."""
    site.pages["/"] = redirect("http://inner.example/secret")
    names = {"outer.example": ["127.0.0.1"], "inner.example": ["169.254.169.254"]}
    fetcher = Fetcher(PRIVATE, resolver=lambda host, port: names[host])
    assert reason(fetcher, f"http://outer.example:{site.port}/") == "address not allowed"


def test_a_name_that_changes_its_address_gains_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rebinding: the second lookup gives loopback, but what a lookup gives is checked each time."""
    site.pages["/"] = body(b"secret")
    answers = iter([["8.8.8.8"], ["127.0.0.1"]])
    connected: list[tuple[str, int]] = []

    def no_route(self: socket.socket, address: tuple[str, int]) -> int:
        connected.append(address)
        return errno.ENETUNREACH

    monkeypatch.setattr(socket.socket, "connect_ex", no_route)
    fetcher = Fetcher(MediaConfig(max_retries=1), resolver=lambda host, port: next(answers))
    assert reason(fetcher, f"http://rebind.example:{site.port}/") == "address not allowed"
    assert connected == [("8.8.8.8", site.port)]
    assert list(answers) == []
    assert site.seen == []


def test_only_the_allowed_ones_of_several_addresses_are_tried(site: Site) -> None:
    """An unusable address first in the list does not hide a good one after it."""
    site.pages["/"] = body(b"ok")
    fetcher = Fetcher(PRIVATE, resolver=lambda host, port: ["169.254.169.254", "127.0.0.1"])
    assert fetcher.fetch(f"http://both.example:{site.port}/", Modality.IMAGE) == b"ok"


def test_redirects_are_followed_up_to_the_limit(site: Site) -> None:
    """Relative and absolute, three by default."""
    site.pages["/1"] = redirect("/2", 301)
    site.pages["/2"] = redirect(f"{site.url}/3", 307)
    site.pages["/3"] = redirect("4", 308)
    site.pages["/4"] = body(b"here")
    site.pages["/0"] = redirect("/1")
    assert Fetcher(PRIVATE).fetch(f"{site.url}/1", Modality.IMAGE) == b"here"
    assert reason(Fetcher(PRIVATE), f"{site.url}/0") == "more than 3 redirects"


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://u:p@127.0.0.1/", "//a\\b/"]
)
def test_a_redirect_must_be_a_plain_http_url(site: Site, location: str) -> None:
    """Other schemes and odd URLs are not followed."""
    site.pages["/"] = redirect(location)
    reason(Fetcher(PRIVATE), site.url)
    assert len(site.seen) == 1


@pytest.mark.parametrize("code", [204, 304, 401, 404, 500, 503])
def test_any_status_but_success_is_named(site: Site, code: int) -> None:
    """204 is a success that brings no picture: its 0 bytes are refused by the decoder."""
    site.pages["/"] = status(code)
    if code == 204:
        assert Fetcher(PRIVATE).fetch(site.url, Modality.IMAGE) == b""
    else:
        assert reason(Fetcher(PRIVATE), site.url) == f"HTTP {code}"


def test_size_is_bounded_whatever_the_server_announces(site: Site) -> None:
    """Honest, absent and lying lengths."""
    config = MediaConfig(allow_private_addresses=True, image=ImageLimits(max_bytes=1000))
    site.pages["/fits"] = body(b"x" * 1000)
    site.pages["/honest"] = body(b"x" * 1001)
    site.pages["/endless"] = endless
    fetcher = Fetcher(config)
    assert len(fetcher.fetch(f"{site.url}/fits", Modality.IMAGE)) == 1000
    for page in ("honest", "endless"):
        assert reason(fetcher, f"{site.url}/{page}") == "file larger than 1000 bytes"


def test_a_body_shorter_than_announced_is_an_error(site: Site) -> None:
    """Never a half file."""
    site.pages["/"] = body(b"x" * 10, length=20)
    assert reason(Fetcher(PRIVATE), site.url) == "no valid HTTP answer, or one cut short"


def test_a_server_that_does_not_speak_http_is_an_error() -> None:
    """Something else listens there."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"SSH-2.0-x\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        text = reason(Fetcher(PRIVATE), f"http://127.0.0.1:{server.getsockname()[1]}/")
        thread.join()
    assert text == "no valid HTTP answer, or one cut short"


def test_nobody_listening_is_could_not_connect() -> None:
    """And the text names no address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert reason(Fetcher(PRIVATE), f"http://127.0.0.1:{port}/") == "could not connect"


def test_https_to_a_server_without_tls_fails_as_tls(site: Site) -> None:
    """The handshake is attempted; nothing falls back to plain text."""
    text = reason(Fetcher(PRIVATE), f"https://127.0.0.1:{site.port}/")
    assert text == "TLS failed"
    assert all(path != "/" for path, _ in site.seen)


CERTIFICATE = Path(__file__).parent / "certificate.pem"  # of pictures.example, by itself


@pytest.fixture
def secure_site() -> Iterator[Site]:
    """The site over TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    site = Site(context)
    yield site
    site.close()


def test_https_is_verified_by_name_although_a_number_is_connected_to(
    secure_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The right name is served; another name, or an unknown issuer, is not."""
    secure_site.pages["/"] = body(b"secret")

    def url(name: str) -> str:
        return f"https://{name}:{secure_site.port}/"

    def resolver(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    assert reason(Fetcher(PRIVATE, resolver=resolver), url("pictures.example")) == "TLS failed"
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    trusting = Fetcher(PRIVATE, resolver=resolver)
    assert trusting.fetch(url("pictures.example"), Modality.IMAGE) == b"secret"
    assert reason(trusting, url("other.example")) == "TLS failed"
    assert secure_site.seen == [("/", f"pictures.example:{secure_site.port}")]


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """What a blocked server or resolver waits for; set when the test is over."""
    event = threading.Event()
    yield event
    event.set()


def test_a_silent_server_times_out(site: Site, released: threading.Event) -> None:
    """The answer never begins."""

    def silent(handler: BaseHTTPRequestHandler) -> None:
        released.wait(30)

    site.pages["/"] = silent
    config = MediaConfig(allow_private_addresses=True, image=ImageLimits(timeout_s=0.1))
    assert reason(Fetcher(config), site.url) == "timed out after 0.1 s"


def test_a_trickling_server_times_out(site: Site) -> None:
    """Each byte comes in time, the file does not: the limit is on the whole fetch."""

    def trickle(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b"x")

    site.pages["/"] = trickle
    config = MediaConfig(
        allow_private_addresses=True, image=ImageLimits(timeout_s=0.2, max_bytes=1 << 40)
    )
    assert reason(Fetcher(config), site.url) == "timed out after 0.2 s"


def test_a_hanging_resolver_times_out(released: threading.Event) -> None:
    """The system's resolver has no timeout of its own."""

    def hanging(host: str, port: int) -> Sequence[str]:
        released.wait(30)
        return ["127.0.0.1"]

    config = MediaConfig(allow_private_addresses=True, image=ImageLimits(timeout_s=0.1))
    text = reason(Fetcher(config, resolver=hanging), "http://slow.example/")
    assert text == "timed out after 0.1 s"


def test_an_unknown_host_is_named_as_such() -> None:
    """Whatever the resolver raises."""

    def unknown(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    assert reason(Fetcher(PRIVATE, resolver=unknown), "http://no.example/") == "host not found"


def test_proxies_and_credentials_of_the_environment_are_not_used(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy would connect on our behalf, past every check."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1/")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1/")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1/")
    site.pages["/"] = body(b"direct")
    assert Fetcher(PRIVATE).fetch(site.url, Modality.IMAGE) == b"direct"
