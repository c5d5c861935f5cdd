"""A chat as plain data, after the HTTP schema and before the template."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from epd.prompt.source import Source
from epd.types import MediaOptions, Modality


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPart:
    """Text of a message that has parts."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemPart:
    """An item of a message: where it is, or what it is, and how it is read."""

    modality: Modality
    source: Source
    options: MediaOptions = MediaOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn. `role` is one that the caller allows; templates may build special tokens of it."""

    role: str
    content: str | tuple[TextPart | ItemPart, ...]
    name: str | None = None


def place_of(message: int, part: int) -> str:
    """The part of a request that an error names."""
    return f"messages[{message}].content[{part}]"


def items_of(messages: Sequence[Message]) -> Iterator[tuple[str, ItemPart]]:
    """Every item in the order of the chat, with the place that an error names."""
    for i, message in enumerate(messages):
        if isinstance(message.content, str):
            continue
        for j, part in enumerate(message.content):
            if isinstance(part, ItemPart):
                yield place_of(i, j), part


def num_characters(messages: Sequence[Message]) -> int:
    """Characters of text in the whole chat."""
    return sum(
        len(message.content)
        if isinstance(message.content, str)
        else sum(len(part.text) for part in message.content if isinstance(part, TextPart))
        for message in messages
    )
