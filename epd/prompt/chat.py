"""A chat as plain data, after the HTTP schema and before the template."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from epd.types import Modality


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPart:
    """Text of a message that has parts."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemPart:
    """An item of a message: where it is, or (a `data:` URL) what it is."""

    modality: Modality
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn. `role` is one that the caller allows; templates may build special tokens of it."""

    role: str
    content: str | tuple[TextPart | ItemPart, ...]
    name: str | None = None


def items_of(messages: Sequence[Message]) -> Iterator[tuple[str, ItemPart]]:
    """Every item in the order of the chat, with the place that an error names."""
    for i, message in enumerate(messages):
        if isinstance(message.content, str):
            continue
        for j, part in enumerate(message.content):
            if isinstance(part, ItemPart):
                yield f"messages[{i}].content[{j}]", part


def num_characters(messages: Sequence[Message]) -> int:
    """Characters of text in the whole chat."""
    return sum(
        len(message.content)
        if isinstance(message.content, str)
        else sum(len(part.text) for part in message.content if isinstance(part, TextPart))
        for message in messages
    )
