"""A fetch that nobody wants any more ends at once, wherever it waits."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from epd.config import MediaConfig
from epd.config.media import ImageLimits
from epd.errors import BadMedia, Cancelled
from epd.media import Fetcher
from epd.types import Modality
from tests.eventually import eventually
from tests.media.site import Site, body, endless, status

HOUR = MediaConfig(
    allow_private_addresses=True,
    max_retries=100,
    image=ImageLimits(timeout_s=3600, max_bytes=1 << 60),
)
SOON_S = 20  # far from the hour, and enough for a machine that is busy


class Leaving:
    """Says that the file is wanted until somebody left, and counts how often it was asked."""

    def __init__(self) -> None:
        self.left = threading.Event()
        self.asked = 0

    def __call__(self) -> bool:
        self.asked += 1
        return not self.left.is_set()


def called_off(fetcher: Fetcher, url: str, waits: Callable[[], bool]) -> None:
    """Start a fetch, leave once `waits` says that it has come to where it hangs."""
    leaving = Leaving()
    outcome: list[BaseException] = []

    def run() -> None:
        try:
            fetcher.fetch(url, Modality.IMAGE, wanted=leaving)
        except BaseException as error:  # noqa: BLE001  it is looked at below
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    before = until(waits) and leaving.asked
    until(lambda: leaving.asked > before + 3)  # it hangs there, and asks meanwhile
    leaving.left.set()
    thread.join(SOON_S)
    assert not thread.is_alive()
    assert isinstance(outcome[0], Cancelled)


def until(reached: Callable[[], bool]) -> bool:
    """Wait for it, but not for ever."""
    return bool(eventually(reached, "it is reached", SOON_S, pause_s=0.005))


@contextmanager
def silent(backlog: int = 8) -> Iterator[tuple[int, list[socket.socket]]]:
    """A port that takes connections and says nothing."""
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as server, ExitStack() as opened:

        def take() -> None:
            try:
                while True:
                    connection = opened.enter_context(server.accept()[0])
                    taken.append(connection)
            except OSError:
                pass

        thread = threading.Thread(target=take)
        thread.start()
        try:
            yield server.getsockname()[1], taken
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_while_the_answer_does_not_begin() -> None:
    """And the server sees the connection end."""
    with silent() as (port, taken):
        called_off(Fetcher(HOUR), f"http://127.0.0.1:{port}/", lambda: bool(taken))
        taken[0].settimeout(SOON_S)
        while taken[0].recv(65536):
            pass


def test_while_the_handshake_of_tls_does_not_begin() -> None:
    with silent() as (port, taken):
        called_off(Fetcher(HOUR), f"https://127.0.0.1:{port}/", lambda: bool(taken))


def test_while_the_file_arrives(site: Site) -> None:
    """Bytes that keep coming are no reason to go on."""
    site.pages["/"] = endless
    called_off(Fetcher(HOUR), site.url, lambda: bool(site.seen))


def test_while_a_file_trickles_in_over_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = Path(__file__).parent / "certificate.pem"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    released = threading.Event()

    def some(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b"x")
        released.wait(SOON_S)

    site = Site(context)
    site.pages["/"] = some
    try:
        fetcher = Fetcher(HOUR, resolver=lambda host, port: ["127.0.0.1"])
        called_off(fetcher, f"https://pictures.example:{site.port}/", lambda: bool(site.seen))
    finally:
        released.set()
        site.close()


def test_while_the_name_is_looked_up() -> None:
    """The lookup itself cannot be stopped; its thread is left behind."""
    asked, released = threading.Event(), threading.Event()

    def hanging(host: str, port: int) -> Sequence[str]:
        asked.set()
        released.wait(3600)
        return ()

    try:
        called_off(Fetcher(HOUR, resolver=hanging), "http://slow.example/", asked.is_set)
    finally:
        released.set()


def test_while_connecting() -> None:
    """A full backlog: the kernel answers nobody."""
    with ExitStack() as opened:
        server = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = server.getsockname()
        for _ in range(4):
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        called_off(Fetcher(HOUR), f"http://127.0.0.1:{address[1]}/", lambda: True)


def test_while_pausing_before_the_next_try(site: Site) -> None:
    site.pages["/"] = status(503)
    called_off(Fetcher(HOUR), site.url, lambda: len(site.seen) >= 2)


def test_a_file_that_nobody_wants_is_not_asked_for(site: Site) -> None:
    site.pages["/"] = body(b"x")
    with pytest.raises(Cancelled):
        Fetcher(HOUR).fetch(site.url, Modality.IMAGE, wanted=lambda: False)
    assert site.seen == []


def test_hanging_sites_do_not_hold_threads_once_their_clients_left(site: Site) -> None:
    """56 of them, as many as there may be fetches; afterwards every thread is free."""
    leaving = Leaving()
    ended = threading.Semaphore(0)
    fetcher = Fetcher(HOUR)

    def run(url: str) -> None:
        with pytest.raises(Cancelled):
            fetcher.fetch(url, Modality.IMAGE, wanted=leaving)
        ended.release()

    with silent(backlog=64) as (port, taken):
        for _ in range(56):
            url = f"http://127.0.0.1:{port}/"
            threading.Thread(target=run, args=(url,), daemon=True).start()
        until(lambda: len(taken) == 56)
        leaving.left.set()
        assert all(ended.acquire(timeout=SOON_S) for _ in range(56))


def test_without_a_listener_the_timeout_still_holds() -> None:
    """The control: the same waits end by time alone."""
    config = MediaConfig(allow_private_addresses=True, image=ImageLimits(timeout_s=0.2))
    with silent() as (port, _):
        for scheme in ("http", "https"):
            with pytest.raises(BadMedia, match=r"timed out after 0\.2 s"):
                Fetcher(config).fetch(f"{scheme}://127.0.0.1:{port}/", Modality.IMAGE)
