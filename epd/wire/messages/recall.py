"""What gateways keep, asked by one of another. They have no links of their own: a worker that knows
both passes their messages on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from epd.wire.messages.registry import message


class Found(StrEnum):
    """What became of a question."""

    KEPT = "kept"
    FORGOTTEN = "forgotten"
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


@message("gateway.forget")
@dataclass(frozen=True, slots=True, kw_only=True)
class Forget:
    """Gateway `asker` -> worker -> `gateway`: keep this response no longer. Answered as a Recall:
    FORGOTTEN, or UNKNOWN where it was not kept.
    """

    gateway: str
    asker: str
    number: int
    owner: str
    response_id: str


@message("gateway.recalled")
@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """Gateway -> worker -> gateway `asker`: what was found, in one raw frame if it is KEPT.

    From a worker itself where it knows no such gateway.
    """

    asker: str
    number: int
    found: Found
