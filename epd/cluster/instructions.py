"""What the gateway's decisions tell it to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from epd.errors import EpdError
from epd.types import TokenLogprobs, TokenRun


@dataclass(frozen=True, slots=True)
class Tell:
    """Send a message; an EncodeItem without url goes with the item's bytes.

    Requests that the workers know may be parts of one that a client asked: see `asked_as`.
    """

    to: str
    message: Any


@dataclass(frozen=True, slots=True)
class Accepted:
    """The prompt's length is known and within the limits.

    `token_ids` are the prompt's where they or its logprobs were asked for, else none; those within
    `row_spans`, half-open ranges, stand for rows of items.
    """

    request_id: str
    num_prompt_tokens: int
    token_ids: tuple[int, ...] = ()
    row_spans: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Opening:
    """What is known of the prompt when the first token is there.

    KV of `num_cached_tokens` of it was there when it was first admitted. `prompt_logprobs` are of
    its tokens from the second on, if they were asked for.
    """

    num_cached_tokens: int
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()


class Emit(NamedTuple):
    """The next tokens of one choice's stream; with a finish reason, the last of it.

    `opening` stands beside the first ones of all. `last`: every choice has ended.
    """

    request_id: str
    run: TokenRun
    opening: Opening | None = None
    last: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """The request ended without an answer."""

    request_id: str
    error: EpdError


Instruction = Tell | Accepted | Emit | Failed
