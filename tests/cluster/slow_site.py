"""A web server that takes a request and answers when it is told to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from tests.media.site import Site, status

PATH = "/slow.png"


@contextmanager
def slow_site(release: threading.Event | None = None) -> Iterator[Site]:
    """Serves PATH, and PATH?NUMBER: 404 once `release` is set, at the end of the block at last."""
    release = release or threading.Event()

    def page(handler: BaseHTTPRequestHandler) -> None:
        release.wait()
        status(404)(handler)

    site = Site()
    site.pages[PATH] = page
    site.pages |= {f"{PATH}?{number}": page for number in range(100)}
    try:
        yield site
    finally:
        release.set()
        site.close()
