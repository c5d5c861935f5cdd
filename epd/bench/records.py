"""What is known of one request: every moment, and the server's own counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, kw_only=True)
class Record:
    """One answer. Times are seconds since its run began.

    `due` is when it should have been sent, which is not before a place is free where the number of
    requests at once is limited; `sent` is when that began, a new
    connection included. `arrivals` has (time, tokens) of
    every event that brought tokens, `ended` is the moment of the last event or of the failure.
    Counts are those of the server's usage, 0 where it said none; `item_tokens` are the prompt's
    tokens by kind of item. `path` is what `epd` tells of a request's way.
    """

    sent: float
    due: float = 0.0
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    ended: float = 0.0
    kind: str = "text"
    asked_tokens: int | None = None
    sent_bytes: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    item_tokens: dict[str, int] = field(default_factory=dict)
    completion_tokens: int = 0
    text: str = ""
    path: dict[str, Any] | None = None
    error: str = ""
    """Why there is no whole answer. Its first words, up to a colon, are the cause."""

    @property
    def cause(self) -> str:
        """What failures are counted by."""
        return self.error.partition(": ")[0]

    @property
    def output_tokens(self) -> int:
        """As the server counted, or else as they came."""
        return self.completion_tokens or sum(num for _, num in self.arrivals)
