"""Requests that a file has: ShareGPT's chats, or lines of JSON."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from epd.bench.datasets.asks import Ask
from epd.bench.datasets.shape import Shape
from epd.errors import ConfigError

LEAST_TOKENS = 4
"""Chats of ShareGPT with a shorter question or answer are passed over, as other tools do."""

LENGTHS = ("max_completion_tokens", "max_tokens", "output_tokens")
"""Fields of a custom line that say how long the answer is; the last is vLLM's."""

OF_THE_FORM = ("messages", "prompt", "conversations", *LENGTHS)


def sharegpt(shape: Shape) -> list[Ask]:
    """The first question of each chat, in an order that the seed gives.

    Answers are as long as the recorded ones, by the server's tokens per word, unless
    `sharegpt_output_len` is given.
    """
    rng = random.Random(f"sharegpt {shape.seed}")
    path = _path(shape)
    try:
        chats = json.loads(path.read_bytes())
    except ValueError as error:
        raise ConfigError(f"--dataset-path: {path} is no JSON: {error}") from error
    if not isinstance(chats, list):
        raise ConfigError(f"--dataset-path: {path} is no list of chats")
    rng.shuffle(chats)
    found = []
    for chat in chats:
        turns = _turns(chat)
        if len(turns) < 2:
            continue
        output = shape.sharegpt_output_len or shape.measure.tokens(turns[1])
        if min(shape.measure.tokens(turns[0]), output) >= LEAST_TOKENS:
            found.append(Ask(text=turns[0], output_tokens=output))
        if len(found) == shape.num:
            break
    return _enough(found, path)


def custom(shape: Shape) -> list[Ask]:
    """A line is an object with `messages`, `prompt` or `conversations`.

    Beside that, LENGTHS say how long the answer is (else the shape's own length), and all other
    fields go into the request. The file begins anew where it has too few lines.
    """
    path = _path(shape)
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    found = [_line(line, number, path, shape) for number, line in enumerate(lines, 1)]
    _enough(found, path)
    return [found[number % len(found)] for number in range(shape.num)]


def _line(line: str, number: int, path: Path, shape: Shape) -> Ask:
    try:
        said = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{path}, line {number}: no JSON: {error}") from error
    if not isinstance(said, dict):
        raise ConfigError(f"{path}, line {number}: no object")
    output = next((said[name] for name in LENGTHS if said.get(name)), shape.output_len)
    if not isinstance(output, int) or output < 1:
        raise ConfigError(f"{path}, line {number}: a length of {output!r}")
    body = {name: value for name, value in said.items() if name not in OF_THE_FORM}
    if isinstance(said.get("messages"), list):
        return Ask(messages=said["messages"], output_tokens=output, body=body)
    words = said["prompt"] if isinstance(said.get("prompt"), str) else next(iter(_turns(said)), "")
    if not words:
        raise ConfigError(f"{path}, line {number}: no messages, prompt or conversations")
    return Ask(text=words, output_tokens=output, body=body)


def _turns(chat: Any) -> list[str]:
    """The texts of a chat, under any of the names that files have them by."""
    turns = chat.get("conversations", chat.get("conversation")) if isinstance(chat, dict) else None
    return list(_texts(turns)) if isinstance(turns, list) else []


def _texts(turns: list[Any]) -> Iterator[str]:
    for turn in turns:
        if isinstance(turn, Mapping):
            yield str(turn.get("value", turn.get("content", "")))


def _path(shape: Shape) -> Path:
    if shape.path is None:
        raise ConfigError(f"--dataset-name {shape.name} needs --dataset-path FILE")
    path = Path(shape.path)
    if not path.is_file():
        raise ConfigError(f"--dataset-path: there is no file {path}")
    return path


def _enough(found: list[Ask], path: Path) -> list[Ask]:
    if not found:
        raise ConfigError(f"--dataset-path: {path} has no request in it")
    return found
