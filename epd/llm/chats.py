"""Chats whose parts may hold what is in memory, as a request can carry them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from epd.errors import BadRequest
from epd.llm.arrays import wrong
from epd.llm.embeds import embeds_parts
from epd.llm.items import Items, Part

Message = Mapping[str, Any]
Chat = Sequence[Message]

IN_MEMORY = {
    "image": "image",
    "image_pil": "image",
    "video": "video",
    "audio": "audio",
    "time_series": "time_series",
}
"""Parts that hold their content under the name of their type, and the modality."""

EMBEDS = {"image_embeds": "image", "video_embeds": "video", "audio_embeds": "audio"}


def as_chats(messages: Any) -> list[Chat]:
    """One chat or a list of chats, as a list of chats."""
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise BadRequest("messages must be a list of messages, or of such lists", param="messages")
    return [messages] if isinstance(messages[0], Mapping) else list(messages)


def read_chat(chat: Chat) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The messages of a request, and what is true of their lists of frames."""
    items = Items()
    messages = []
    for i, message in enumerate(chat):
        content = message.get("content")
        if isinstance(content, list | tuple):
            parts = [
                _part(items, part, f"messages[{i}].content[{j}]") for j, part in enumerate(content)
            ]
            message = {**message, "content": parts}
        messages.append(dict(message))
    return messages, items.frames


def _part(items: Items, part: Any, where: str) -> Any:
    if not isinstance(part, Mapping):
        return part
    name = part.get("type")
    if name in IN_MEMORY:
        before = len(items.parts)
        items.add(IN_MEMORY[name], part.get(name), f"{where}.{name}")
        made = items.parts[before:]
    elif name in EMBEDS and not _is_sent(part.get(name)):
        made = embeds_parts(EMBEDS[name], part[name], f"{where}.{name}")
    else:
        return dict(part)
    return {**_only(made, f"{where}.{name}"), **{k: v for k, v in part.items() if k == "uuid"}}


def _is_sent(value: Any) -> bool:
    """Base64 already, or left out."""
    inner = value.values() if isinstance(value, Mapping) else [value]
    return all(one is None or isinstance(one, str) for one in inner)


def _only(made: Sequence[Part], where: str) -> Part:
    if len(made) != 1:
        raise wrong(where, f"has {len(made)} items; a part has one")
    return made[0]
