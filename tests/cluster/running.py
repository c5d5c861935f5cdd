"""A cluster as a user starts it: `epd serve` in a process of its own, watched from outside."""

from __future__ import annotations

import base64
import io
import os
import queue
import re
import signal
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from tests.cluster.front import Front, eventually
from tests.programs import Program

__all__ = ["Cluster", "data_url", "encoded", "eventually", "image_part", "picture"]

START_S = 120.0


class Cluster(Front):
    """`epd serve MODEL --topology T` on a free port; `settings` are --set key=value, `flags` stand
    before them as they are."""

    def __init__(
        self,
        model: Path,
        topology: str,
        *settings: str,
        flags: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        argv = ["serve", str(model), "--topology", topology, "--port", "0", *flags]
        argv += ["--set", "dtype=float32", "--set", "language.kv_tokens=16384"]
        argv += ["--set", "wire.heartbeat_s=0.2"]  # what workers hold is heard soon
        for setting in settings:
            argv += ["--set", setting]
        (self._output, output), (self._errors, errors) = os.pipe(), os.pipe()
        env = {**os.environ, **(env or {})}
        self.process = Program(argv, stdout=output, stderr=errors, env=env)
        os.close(output)
        os.close(errors)
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
        super().__init__(found.group(), model.name)

    def _read_output(self) -> None:
        with os.fdopen(self._output) as lines:
            for line in lines:
                self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _read_log(self) -> None:
        with os.fdopen(self._errors) as lines:
            for line in lines:
                self.log.append(line.rstrip("\n"))

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
        return code


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
