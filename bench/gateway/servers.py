"""Starts what is measured, each in a process of its own, and ends it by its process id."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench.serving.cluster import NotMeasured

STOP_S = 20.0
READY_S = 120.0
MODEL = "bench"
CHAT = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Server:
    """Where it is asked, and the process whose time counts."""

    url: str
    pid: int

    def cpu_s(self) -> float:
        """Processor time of all its threads so far."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)


@contextmanager
def bare() -> Iterator[Server]:
    """Starlette alone."""
    argv = [sys.executable, "-m", "bench.gateway.bare"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise NotMeasured("the bare server did not start")
        yield Server(url + CHAT, process.pid)
    finally:
        _end(process)


@contextmanager
def gateway(folder: Path, step_s: float) -> Iterator[Server]:
    """`epd gateway` with the stub as its only worker."""
    with tempfile.TemporaryDirectory(prefix="epd-bench-") as runtime:
        process, ready = _start_gateway(folder, runtime)
        try:
            stub = [sys.executable, "-m", "bench.gateway.stub", str(folder), ready["control"]]
            worker = subprocess.Popen([*stub, "--step-s", str(step_s)])
            try:
                _wait_until_ready(ready["url"])
                yield Server(ready["url"] + CHAT, process.pid)
            finally:
                _end(worker)
        finally:
            _end(process)


def _start_gateway(folder: Path, runtime: str) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
    settings = [f"model={folder}", "name=gateway-0", f"listen=ipc://{runtime}", "gateway.port=0"]
    settings += [f"gateway.served_model_name={MODEL}", "log_level=error"]
    reader, writer = os.pipe()
    argv = [sys.executable, "-m", "epd", "gateway", "--ready-fd", str(writer)]
    for setting in settings:
        argv += ["--set", setting]
    process = subprocess.Popen(argv, pass_fds=(writer,))
    os.close(writer)
    with os.fdopen(reader) as pipe:
        line = pipe.readline()
    if not line:
        _end(process)
        raise NotMeasured("the gateway did not start")
    return process, json.loads(line)


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + READY_S
    while httpx.get(f"{url}/ready").status_code != 200:
        if time.monotonic() > deadline:
            raise NotMeasured("the stub has not joined the gateway")
        time.sleep(0.05)


def _end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
