"""One line of JSON on the parent's pipe: ready, or why not."""

from __future__ import annotations

import json
import os


def say_ready(fd: int | None, **facts: object) -> None:
    """The role serves now."""
    _write(fd, {"ready": True, **facts})


def say_error(fd: int | None, message: str) -> None:
    """The role cannot start."""
    _write(fd, {"error": message})


def _write(fd: int | None, line: dict[str, object]) -> None:
    if fd is None:
        return
    with os.fdopen(fd, "w") as pipe:
        pipe.write(json.dumps(line) + "\n")
