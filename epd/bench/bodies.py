"""From asks to bytes: everything is encoded before the first request goes out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from epd.bench.asking import Prepared
from epd.bench.datasets import Ask
from epd.bench.items import Item, part
from epd.errors import ConfigError

PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}
PLACE = "\0{}\0"
"""Where an item's JSON goes; no text has these characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How every request of a command is written. `extra` goes before all that is here."""

    model: str
    api: str = "chat"
    ignore_eos: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)


class Writer:
    """Writes requests. Items that come again are encoded once, and their bytes shared."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self._encoded: dict[Item, bytes] = {}

    def write(
        self,
        asks: Sequence[Ask],
        due_s: Sequence[float],
        on_each: Callable[[], None] = lambda: None,
    ) -> list[Prepared]:
        """An ask is due at its own time, where it has one."""
        found = []
        for ask, due in zip(asks, due_s, strict=True):
            found.append(self.one(ask, due if ask.at_s is None else ask.at_s))
            on_each()
        return found

    def one(self, ask: Ask, due_s: float = 0.0) -> Prepared:
        """A single request."""
        return Prepared(
            path=PATHS[self._form.api],
            body=self._pieces(ask),
            kind=ask.kind,
            asked_tokens=self._asked(ask),
            due_s=due_s,
        )

    def _asked(self, ask: Ask) -> int | None:
        """The exact length of the answer, where the server is told one."""
        return ask.output_tokens if self._form.ignore_eos else None

    def _pieces(self, ask: Ask) -> list[bytes]:
        body = json.dumps(self._body(ask), separators=(",", ":"))
        pieces = []
        for number, item in enumerate(ask.items):
            before, _, body = body.partition(json.dumps(PLACE.format(number)))
            pieces += [before.encode(), self._item(item)]
        return [*pieces, body.encode()]

    def _item(self, item: Item) -> bytes:
        if item not in self._encoded:
            self._encoded[item] = json.dumps(part(item)).encode()
        return self._encoded[item]

    def _body(self, ask: Ask) -> dict[str, Any]:
        form = self._form
        body: dict[str, Any] = {"model": form.model, "temperature": 0}
        if form.api == "chat":
            body["messages"] = ask.messages if ask.messages is not None else [_turn(ask)]
            length = "max_completion_tokens"
        else:
            body["prompt"] = _plain(ask)
            length = "max_tokens"
        if ask.output_tokens is not None:
            body[length] = ask.output_tokens
        if form.ignore_eos:
            body["ignore_eos"] = True
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        return {**body, **form.extra, **ask.body}


def _turn(ask: Ask) -> dict[str, Any]:
    if not ask.items:
        return {"role": "user", "content": ask.text}
    items = [PLACE.format(number) for number in range(len(ask.items))]
    return {"role": "user", "content": [*items, {"type": "text", "text": ask.text}]}


def _plain(ask: Ask) -> str:
    if ask.items or ask.messages is not None:
        raise ConfigError("--backend: text completions take no chats, pictures, videos or sounds")
    return ask.text
