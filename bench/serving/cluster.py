"""Starts what is measured: one `epd serve`, from its ready line to its end by process id."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

STOP_S = 60.0
LAST_LINES = 15


class NotMeasured(Exception):
    """There is no result; says why."""


@contextmanager
def serving(folder: Path, topology: str, settings: Sequence[str]) -> Iterator[str]:
    """A cluster on a free port of the loopback, ready; the URL in front of /v1."""
    argv = [sys.executable, "-m", "epd", "serve", str(folder), "--topology", topology]
    argv += ["--port", "0"]
    for setting in settings:
        argv += ["--set", setting]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            yield _url(process, log.fileno())
        finally:
            _end(process)


def served_model(url: str, timeout_s: float) -> str:
    """The name that a server gives its model."""
    models = httpx.get(f"{url}/v1/models", timeout=timeout_s).raise_for_status().json()
    name: str = models["data"][0]["id"]
    return name


def _url(process: subprocess.Popen[str], log: int) -> str:
    """Waits for the ready line; `epd serve` has a timeout of its own for it."""
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://\S+(?=/v1)", line)
    if found is None:
        process.wait(STOP_S)
        last = Path(f"/proc/self/fd/{log}").read_text().splitlines()[-LAST_LINES:]
        raise NotMeasured("the cluster did not start:\n" + "\n".join(last))
    return found.group()


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdout is not None
    process.stdout.close()
