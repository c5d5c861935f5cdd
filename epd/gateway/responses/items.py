"""From the items of a conversation to the messages of a chat. Pure.

A part that is written as in a chat stays as it is; what a message may hold is judged there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from epd.errors import BadRequest

Item = dict[str, Any]
Message = dict[str, Any]

TEXTS = frozenset({"input_text", "output_text", "text", "summary_text", "reasoning_text"})
"""Types of parts that are nothing but their text."""


FILE = ("file_data", "file_url", "filename")
"""What an input_file says of its file, which is an object in a chat. No file has an id here."""


class Chat:
    """Messages, and for each the item that it came from, in a client's words."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.places: list[str] = []
        self._reasoning: list[str] = []

    def instruct(self, instructions: str) -> None:
        """What stands before all; with a system message that follows, as one."""
        first = self.messages[0] if self.messages else {}
        if first.get("role") in ("system", "developer") and (text := _plain(first)) is not None:
            first["content"] = f"{instructions}\n\n{text}"
        else:
            self.messages.insert(0, {"role": "system", "content": instructions})
            self.places.insert(0, "instructions")

    def add(self, items: Sequence[Item], where: Callable[[int], str]) -> None:
        """In order. BadRequest names an item that is none."""
        for i, item in enumerate(items):
            self._add(item, where(i))
        self._reasoning.clear()  # nothing was said after it

    def _add(self, item: Item, where: str) -> None:
        kind = item.get("type") or ("message" if "role" in item else None)
        if kind == "message":
            self._message(item, where)
        elif kind == "function_call":
            self._call(item, where)
        elif kind == "function_call_output":
            output = _content(item.get("output"), f"{where}.output")
            said = {"tool_call_id": _string(item, "call_id", where), "content": output}
            self._say({"role": "tool", **said}, where)
        elif kind == "reasoning":
            self._reasoning += _texts(item.get("content") or item.get("summary"), where)
        else:
            raise BadRequest(
                f"{where}: type must be one of message, function_call, function_call_output, "
                "reasoning",
                param=where,
            )

    def _message(self, item: Item, where: str) -> None:
        role = item.get("role")
        if role not in ("user", "assistant", "system", "developer"):
            raise BadRequest(
                f"{where}.role must be user, assistant, system or developer", param=f"{where}.role"
            )
        message = {"role": role, "content": _content(item.get("content"), f"{where}.content")}
        self._say(message, where)

    def _call(self, item: Item, where: str) -> None:
        """Calls belong to the assistant's turn that they were part of."""
        names = ("call_id", "name", "arguments")
        call_id, name, arguments = (_string(item, key, where) for key in names)
        call = {
            "id": call_id,
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        if not self.messages or self.messages[-1]["role"] != "assistant" or self._reasoning:
            self._say({"role": "assistant", "content": None}, where)
        self.messages[-1].setdefault("tool_calls", []).append(call)

    def _say(self, message: Message, where: str) -> None:
        if self._reasoning and message["role"] == "assistant":
            message["reasoning_content"] = "".join(self._reasoning)
        self._reasoning.clear()
        self.messages.append(message)
        self.places.append(where)


def _plain(message: Message) -> str | None:
    content = message["content"]
    if isinstance(content, str):
        return content
    texts = [part["text"] for part in content if part.get("type") == "text"]
    return "".join(texts) if len(texts) == len(content) else None


def _content(content: Any, where: str) -> Any:
    """A string or parts in a chat's form; anything else is for the chat's schema to refuse."""
    if not isinstance(content, list):
        return content
    return [_part(part, f"{where}[{i}]") for i, part in enumerate(content)]


def _part(part: Any, where: str) -> Any:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str):
        return part
    if kind in TEXTS:
        return {"type": "text", "text": part.get("text")}
    if kind == "refusal":
        return {"type": "text", "text": part.get("refusal")}
    if kind == "input_image":
        _no_file(part, where)
        detail = {} if part.get("detail") is None else {"detail": part["detail"]}
        return _media("image_url", part, {"type", "image_url", "detail", "file_id"}, **detail)
    if kind == "input_video":
        return _media("video_url", part, {"type", "video_url"})
    if kind == "input_audio" and isinstance(part.get("audio_url"), str):
        return _media("audio_url", part, {"type", "audio_url"})
    if kind == "input_file":
        _no_file(part, where)
        file = {name: part[name] for name in FILE if part.get(name) is not None}
        rest = {name: value for name, value in part.items() if name not in (*FILE, "file_id")}
        return {**rest, "type": "file", "file": file}
    return part


def _media(kind: str, part: Item, taken: set[str], **more: Any) -> Item:
    """A URL that stands as a string is an object in a chat."""
    rest = {name: value for name, value in part.items() if name not in taken}
    url = part.get(kind)
    return {**rest, "type": kind, kind: {"url": url, **more} if isinstance(url, str) else url}


def _no_file(part: Item, where: str) -> None:
    if part.get("file_id") is not None:
        param = f"{where}.file_id"
        raise BadRequest(f"{param}: this server keeps no files", param=param)


def _string(item: Item, name: str, where: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise BadRequest(f"{where}.{name} must be a string", param=f"{where}.{name}")
    return value


def _texts(parts: Any, where: str) -> list[str]:
    found = parts if isinstance(parts, list) else []
    return [_string(part, "text", where) for part in found if isinstance(part, dict)]
