"""A chat as plain data, after the HTTP schema and before the template."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
class ToolCall:
    """A call that the assistant made."""

    name: str
    arguments: Mapping[str, Any]
    id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn. `role` is one that the caller allows; templates may build special tokens of it.

    The assistant's may have `tool_calls` and `reasoning`; what the function
    said that was called as `tool_call_id` has the role "tool".
    """

    role: str
    content: str | tuple[TextPart | ItemPart, ...]
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    reasoning: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """How a chat becomes a prompt: whether the assistant begins a new turn there, or the last
    message goes on, the functions that the model may call, the template's own arguments, and how
    much is to be thought. `template` is one to take in place of the model's."""

    add_generation_prompt: bool = True
    continue_final_message: bool = False
    tools: Sequence[Mapping[str, Any]] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    effort: str | None = None
    template: str | None = None


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
        _num_in_content(message)
        + len(message.reasoning or "")
        + sum(len(json.dumps(call.arguments)) for call in message.tool_calls)
        for message in messages
    )


def _num_in_content(message: Message) -> int:
    if isinstance(message.content, str):
        return len(message.content)
    return sum(len(part.text) for part in message.content if isinstance(part, TextPart))
