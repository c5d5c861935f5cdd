"""What gateways keep, asked by one of another. They have no links of their own: a worker that knows
both passes their messages on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from epd.wire.messages.registry import message


class Found(StrEnum):
    """What became of a question."""

    KEPT = "kept"
    UNKNOWN = "unknown"
    TOO_LARGE = "too_large"
    NO_GATEWAY = "no_gateway"


@message("gateway.recall")
@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """Gateway `asker` -> worker -> `gateway`: what do you keep of this response?

    `number` is the asker's, and comes back.
    """

    gateway: str
    asker: str
    number: int
    owner: str
    response_id: str


@message("gateway.recalled")
@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """Gateway -> worker -> gateway `asker`: this, in one raw frame, if it is kept.

    From a worker itself where it knows no such gateway.
    """

    asker: str
    number: int
    found: Found
