"""A cluster as a user starts it: `epd serve` in a process of its own, watched from outside."""

from __future__ import annotations

import base64
import io
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from openai import OpenAI
from PIL import Image

START_S = 120.0


def eventually(condition: Callable[[], Any], what: str, timeout_s: float = 30.0) -> Any:
    """Ask again until the answer is true; the answer. Fails naming `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:.0f} s: {what}")
        pause.wait(0.05)
    return answer


class Cluster:
    """`epd serve MODEL --topology T` on a free port; `settings` are --set key=value."""

    def __init__(
        self, model: Path, topology: str, *settings: str, env: Mapping[str, str] | None = None
    ) -> None:
        self.model = model.name
        argv = [sys.executable, "-m", "epd", "serve", str(model), "--topology", topology]
        argv += ["--port", "0", "--set", "dtype=float32", "--set", "language.kv_tokens=16384"]
        for setting in settings:
            argv += ["--set", setting]
        self.process = subprocess.Popen(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, **(env or {})},
        )
        self.log: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._readers = [
            threading.Thread(target=self._read_output, daemon=True),
            threading.Thread(target=self._read_log, daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        self.ready_line = self._lines.get(timeout=START_S)
        if self.ready_line is None:
            self.process.wait()
            raise AssertionError("the cluster did not start:\n" + "\n".join(self.log[-30:]))
        found = re.search(r"http://\S+(?=/v1)", self.ready_line)
        assert found, self.ready_line
        self.url = found.group()

    def _read_output(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line.rstrip("\n"))

    def client(self, **options: Any) -> OpenAI:
        """The stock client. No retries: a test wants to see the first answer."""
        return OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, **options)

    def post(self, body: Any, **options: Any) -> httpx.Response:
        """A raw chat request."""
        return httpx.post(f"{self.url}/v1/chat/completions", json=body, timeout=60, **options)

    def metrics(self) -> dict[str, float]:
        """Every sample of /metrics by its name and labels."""
        samples = {}
        for line in httpx.get(f"{self.url}/metrics", timeout=30).text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                samples[name] = float(value)
        return samples

    def in_use(self) -> dict[str, float]:
        """The gauges of what is held for requests that are not zero."""
        return _held(self.metrics())

    def wait_until_idle(self, timeout_s: float = 30.0) -> None:
        """Every worker has said, well after this call, that it holds nothing."""
        heard: dict[str, float] = {}

        def idle() -> bool:
            samples = self.metrics()
            later = []
            for worker, count in _messages_received(samples).items():
                heard[worker] = min(count, heard.get(worker, count))  # lower: it was restarted
                later.append(count >= heard[worker] + 3)
            return bool(later) and all(later) and not _held(samples)

        try:
            eventually(idle, "nothing is in use", timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}, but: {self.in_use()}") from None

    def workers(self) -> set[str]:
        """Names of the workers that take part now."""
        return set(_messages_received(self.metrics()))

    def child(self, role: str) -> psutil.Process:
        """The process whose title says `epd: ROLE `."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        for child in children:
            if " ".join(child.cmdline()).startswith(f"epd: {role} "):
                return child
        raise AssertionError(f"no {role} among {[c.cmdline() for c in children]}")

    def kill(self, role: str) -> None:
        """kill -9 of one role, waited for."""
        child = self.child(role)
        child.kill()
        child.wait(10)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask the whole cluster to stop; the exit code."""
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        code = self.process.wait(60)
        for reader in self._readers:
            reader.join(10)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
        return code


def _held(samples: dict[str, float]) -> dict[str, float]:
    words = ("blocks_used", "requests", "items", "row", "prepared", "shm_bytes", "sends", "jobs")
    totals = re.compile(r"_(sent|ms)(\{|$)")
    gateway = ("epd_live_requests", "epd_waiting_requests", "epd_media_bytes")
    return {
        name: value
        for name, value in samples.items()
        if value
        and not totals.search(name)
        and (
            name in gateway
            or (name.startswith("epd_worker_") and any(word in name for word in words))
        )
    }


def _messages_received(samples: dict[str, float]) -> dict[str, float]:
    """By worker; grows with every heartbeat."""
    found = {}
    for name, value in samples.items():
        if match := re.fullmatch(r'epd_worker_links_received\{.*worker="([^"]+)"\}', name):
            found[match[1]] = value
    return found


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture that no other seed gives."""
    values = np.random.default_rng(seed).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3))
    small = Image.fromarray(values.astype(np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    """The picture as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def data_url(image: Image.Image, kind: str = "PNG") -> str:
    """The picture as a client sends it; PNG keeps every pixel."""
    return f"data:image/{kind.lower()};base64," + base64.b64encode(encoded(image, kind)).decode()


def image_part(image: Image.Image) -> dict[str, Any]:
    """A content part of the chat API."""
    return {"type": "image_url", "image_url": {"url": data_url(image)}}
