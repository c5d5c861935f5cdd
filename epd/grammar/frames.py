"""JSON objects over a pipe between two processes of ours, each behind its length."""

from __future__ import annotations

import json
from typing import IO, Any

_LENGTH = 8


def write_frame(pipe: IO[bytes], message: dict[str, Any]) -> None:
    """All of it at once."""
    data = json.dumps(message).encode()
    pipe.write(len(data).to_bytes(_LENGTH, "big") + data)
    pipe.flush()


def read_frame(pipe: IO[bytes]) -> dict[str, Any]:
    """The next one. EOFError where the other side is gone."""
    size = int.from_bytes(_exactly(pipe, _LENGTH), "big")
    message: dict[str, Any] = json.loads(_exactly(pipe, size))
    return message


def _exactly(pipe: IO[bytes], size: int) -> bytes:
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError
    return data
