"""What the gateway's decisions tell it to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from epd.errors import EpdError
from epd.types import TokenRun


@dataclass(frozen=True, slots=True)
class Tell:
    """Send a message; an EncodeItem without url goes with the item's bytes."""

    to: str
    message: Any


@dataclass(frozen=True, slots=True)
class Accepted:
    """The prompt's length is known and within the limits."""

    request_id: str
    num_prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Emit:
    """The next tokens of the stream; with a finish reason, the last."""

    request_id: str
    run: TokenRun


@dataclass(frozen=True, slots=True)
class Failed:
    """The request ended without an answer."""

    request_id: str
    error: EpdError


Instruction = Tell | Accepted | Emit | Failed
