"""An answer as items, and as the events that tell how the items came to be. Pure.

Items follow each other: what begins ends what was before it. The same items come of the same text,
in whatever pieces it came.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from epd.prompt.calls import CallPiece

Event = dict[str, Any]
Item = dict[str, Any]


class Transcript:
    """The items of one response. `answer_id` is what their ids are made of."""

    def __init__(self, answer_id: str) -> None:
        self.items: list[Item] = []
        self._answer_id = answer_id
        self._open: Item | None = None
        self._call = -1
        self._logprobs: list[Any] = []

    def reasoning(self, text: str) -> Iterable[Event]:
        """More of what the model thinks."""
        if text:
            yield from self._begin("reasoning", {"summary": [], "content": []})
            yield from self._more("reasoning", text)

    def text(self, text: str, logprobs: Sequence[Any] = ()) -> Iterable[Event]:
        """More of what the model says; log-probabilities wait for the text of their tokens."""
        self._logprobs += logprobs
        if text:
            yield from self._begin("message", {"role": "assistant", "content": []})
            yield from self._more("output_text", text, logprobs=self._taken())

    def call(self, piece: CallPiece, call_id: str) -> Iterable[Event]:
        """More of a call that the model makes."""
        if piece.index != self._call:
            yield from self._end("completed")
            self._call = piece.index
            call = {"call_id": call_id, "name": piece.name, "arguments": ""}
            yield from self._begin("function_call", call)
        if piece.arguments:
            self._item["arguments"] += piece.arguments
            yield self._event("function_call_arguments.delta", delta=piece.arguments)

    def finish(self, *, complete: bool) -> Iterable[Event]:
        """Nothing more comes. An answer that says nothing is a message without text."""
        if not self.items:
            yield from self._begin("message", {"role": "assistant", "content": []})
            yield from self._add_part("output_text")
        yield from self._end("completed" if complete else "incomplete")

    @property
    def _item(self) -> Item:
        assert self._open is not None
        return self._open

    def _begin(self, kind: str, fields: Item) -> Iterable[Event]:
        if self._open is not None and self._open["type"] == kind:
            return
        yield from self._end("completed")
        item_id = f"{_PREFIXES[kind]}_{self._answer_id}_{len(self.items)}"
        self._open = {"type": kind, "id": item_id, "status": "in_progress", **fields}
        self.items.append(self._open)
        yield {"type": "response.output_item.added", **self._at(), "item": _copy(self._open)}

    def _more(self, kind: str, text: str, **fields: Any) -> Iterable[Event]:
        if not self._item["content"]:
            yield from self._add_part(kind)
        part = self._item["content"][0]
        part["text"] += text
        if "logprobs" in fields:
            part["logprobs"] += fields["logprobs"]
        yield self._event(f"{kind}.delta", content_index=0, delta=text, **fields)

    def _add_part(self, kind: str) -> Iterable[Event]:
        part: Item = {"type": "reasoning_text", "text": ""}
        if kind == "output_text":
            part = {"type": kind, "text": "", "annotations": [], "logprobs": []}
        self._item["content"].append(part)
        yield self._event("content_part.added", content_index=0, part=_copy(part))

    def _end(self, status: str) -> Iterable[Event]:
        item = self._open
        if item is None:
            return
        if item["type"] == "function_call":
            said = {"name": item["name"], "arguments": item["arguments"]}
            yield self._event("function_call_arguments.done", **said)
        elif item["content"]:
            yield from self._end_part(item["content"][0])
        item["status"] = status
        yield {"type": "response.output_item.done", **self._at(), "item": _copy(item)}
        self._open, self._call = None, -1

    def _end_part(self, part: Item) -> Iterable[Event]:
        kind, fields = "reasoning", {}
        if part["type"] == "output_text":
            part["logprobs"] += self._taken()
            kind, fields = "output_text", {"logprobs": list(part["logprobs"])}
        yield self._event(f"{kind}.done", content_index=0, text=part["text"], **fields)
        yield self._event("content_part.done", content_index=0, part=_copy(part))

    def _taken(self) -> list[Any]:
        taken, self._logprobs = self._logprobs, []
        return taken

    def _event(self, name: str, /, **fields: Any) -> Event:
        return {"type": f"response.{name}", "item_id": self._item["id"], **self._at(), **fields}

    def _at(self) -> dict[str, int]:
        return {"output_index": len(self.items) - 1}


_PREFIXES = {"reasoning": "rs", "message": "msg", "function_call": "fc"}


def _copy(value: Any) -> Any:
    """As it is now: what an event says does not change any more."""
    if isinstance(value, dict):
        return {name: _copy(one) for name, one in value.items()}
    return [_copy(one) for one in value] if isinstance(value, list) else value
