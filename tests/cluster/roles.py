"""Roles started one by one, as on several machines."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.programs import Program

LAUNCH = Path(__file__).parents[2] / "launch" / "local"


@contextmanager
def started(name: str, model: Path, *settings: str) -> Iterator[Callable[[], dict[str, Any]]]:
    """One role from its file in launch/local, and how to wait for what it says when it is ready."""
    ready, writer = os.pipe()
    argv = [name, "--config", str(LAUNCH / f"{name}.yaml")]
    argv += ["--ready-fd", str(writer), "--set", f"model={model}", "--set", "dtype=float32"]
    for setting in settings:
        argv += ["--set", setting]
    with Path(os.devnull).open("wb") as nowhere:
        process = Program(argv, stderr=nowhere.fileno(), pass_fds=(writer,))
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
