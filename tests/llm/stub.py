"""An HTTP server of this process that answers as a test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any, Mapping[str, str]]


class Asked:
    """One request, in the hands of the thread that answers it."""

    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        self._handler = handler
        self.path = handler.path
        self.body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))

    def wait_until_left(self) -> None:
        """The client has closed its connection."""
        assert self._handler.connection.recv(1) == b""


@contextmanager
def serving(answer: Callable[[Asked], Answer | None]) -> Iterator[str]:
    """The URL of a server; what `answer` raises is raised at the end. None answers nothing."""
    faults: list[BaseException] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            try:
                said = answer(Asked(self))
            except BaseException as fault:
                faults.append(fault)
                raise
            if said is None:
                self.close_connection = True
                return
            status, body, headers = said
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"content-length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Tests say themselves what they see."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    if faults:
        raise faults[0]
