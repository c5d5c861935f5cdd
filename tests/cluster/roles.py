"""Roles started one by one, as on several machines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LAUNCH = Path(__file__).parents[2] / "launch" / "local"


@contextmanager
def started(name: str, model: Path, *settings: str) -> Iterator[Callable[[], dict[str, Any]]]:
    """One role from its file in launch/local, and how to wait for what it says when it is ready."""
    ready, writer = os.pipe()
    argv = [sys.executable, "-m", "epd", name, "--config", str(LAUNCH / f"{name}.yaml")]
    argv += ["--ready-fd", str(writer), "--set", f"model={model}", "--set", "dtype=float32"]
    for setting in settings:
        argv += ["--set", setting]
    process = subprocess.Popen(argv, pass_fds=(writer,), stderr=subprocess.DEVNULL)
    os.close(writer)
    try:
        with os.fdopen(ready) as pipe:
            yield lambda: dict(json.loads(pipe.readline()))
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


@contextmanager
def role(name: str, model: Path, *settings: str) -> Iterator[dict[str, Any]]:
    """The same, ready already."""
    with started(name, model, *settings) as ready:
        yield ready()
