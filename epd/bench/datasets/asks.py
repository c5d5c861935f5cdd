"""What a data set is made of: requests as values, before anything is encoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from epd.bench.items import Item


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request: items first, then text, in one turn of a user; or `messages` as they are.

    `output_tokens` None: as many as the server gives. `at_s` is when a trace had it, since the
    trace's first request. `body` has further fields, which go before those of the command.
    """

    text: str = ""
    items: tuple[Item, ...] = ()
    messages: Sequence[Mapping[str, Any]] | None = None
    output_tokens: int | None = None
    at_s: float | None = None
    body: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The kind of its items, or text, or mixed."""
        kinds = {item.kind for item in self.items}
        return kinds.pop() if len(kinds) == 1 else "mixed" if kinds else "text"
