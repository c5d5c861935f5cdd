"""One server at a time: started on a free port of the loopback, ready, and ended by its id."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import httpx

from bench.peers.servers import Server
from bench.serving.cluster import NotMeasured

READY_S = 420.0
STOP_S = 30.0
LAST_LINES = 15


@contextmanager
def running(server: Server, checkpoint: Path) -> Iterator[str]:
    """The URL in front of /v1. NotMeasured with its last words: it did not become ready."""
    print(f"starting {server.name}", file=sys.stderr)
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            server.argv(checkpoint, port),
            env=server.environ(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            _wait(server, process, url, log)
            yield url
        finally:
            _end(process)


def model_name(url: str, checkpoint: Path) -> str:
    """As the server names it; one that cannot say it offline knows the folder."""
    answer = httpx.get(f"{url}/v1/models", timeout=READY_S)
    if answer.status_code != 200:
        return str(checkpoint)
    name: str = answer.json()["data"][0]["id"]
    return name


def versions(server: Server) -> dict[str, str]:
    """Of the distributions in its environment that matter."""
    code = "import json, sys; from importlib.metadata import version as v\n"
    code += "print(json.dumps({name: v(name) for name in sys.argv[1:]}))"
    said = subprocess.run(
        [server.python, "-c", code, *server.versions], capture_output=True, text=True, check=True
    )
    found: dict[str, str] = json.loads(said.stdout)
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(server: Server, process: subprocess.Popen[bytes], url: str, log: IO[bytes]) -> None:
    end = time.monotonic() + READY_S
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(f"{url}{server.ready}", timeout=5.0).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    log.seek(0)
    said = log.read().decode("utf-8", "replace").splitlines()[-LAST_LINES:]
    raise NotMeasured(f"{server.name} did not start:\n" + "\n".join(said))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Itself first; then whoever of its session outlived it."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
