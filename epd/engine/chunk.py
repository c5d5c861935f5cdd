"""What a step computes of one sequence, and which pages move before it. Plain values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from epd.engine.kv.blocks import PROMPT
from epd.engine.request import Choice, RequestState


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens [first, first + num) of a request's prompt, or of one choice.

    The last row gives the next token of every choice in `samples`.
    """

    state: RequestState
    first: int
    num: int
    samples: tuple[Choice, ...]
    choice: Choice | None = None

    @property
    def table(self) -> int:
        """Which of the request's tables it reads and writes."""
        return PROMPT if self.choice is None else self.choice.number

    @property
    def token_ids(self) -> list[int]:
        """What is computed."""
        if self.choice is not None:
            return self.choice.tokens[-1:]
        return self.state.prompt[self.first : self.first + self.num]


class MoveKind(Enum):
    """Between which memories pages are copied."""

    COPY = "page to page"
    SAVE = "page to host"
    LOAD = "host to page"


@dataclass(frozen=True, slots=True)
class Move:
    """Pages to copy before the forward, in the order of a step's moves: (from, to) numbers."""

    kind: MoveKind
    pairs: tuple[tuple[int, int], ...]
