"""Tokens, and the ends of requests."""

from __future__ import annotations

from dataclasses import dataclass

from epd.types import RequestKey, TokenLogprobs, TokenRun
from epd.wire.messages.registry import message


@message("tokens")
@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Language worker -> gateway: what one step produced, one message per step and gateway."""

    runs: tuple[TokenRun, ...]


@message("tokens.prompt")
@dataclass(frozen=True, slots=True, kw_only=True)
class PromptLogprobs:
    """Prefill -> gateway: of prompt tokens from `first_token` (1 at least: the first has none)."""

    request: RequestKey
    first_token: int
    logprobs: tuple[TokenLogprobs, ...]


@message("request.stop_choice")
@dataclass(frozen=True, slots=True, kw_only=True)
class StopChoice:
    """Gateway -> every language worker of the attempt: no more tokens of this choice are needed.

    It may come before the choice runs there. The request ends with its last choice.
    """

    request: RequestKey
    choice: int


@message("request.failed")
@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFailed:
    """Any worker -> gateway: this attempt ended here; fields of an EpdError. Nothing is held."""

    request: RequestKey
    status: int
    code: str
    reason: str


@message("request.cancel")
@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Gateway -> every worker of the attempt: give everything back.

    Leaves a tombstone: later messages of this key are refused.
    """

    request: RequestKey


@message("request.broken")
@dataclass(frozen=True, slots=True, kw_only=True)
class PeerFailed:
    """Prefill <-> decode: this attempt ended on my side, end it on yours without an answer."""

    request: RequestKey
