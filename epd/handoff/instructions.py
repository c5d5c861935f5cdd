"""What a hand-off machine tells its worker to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from epd.errors import EpdError
from epd.types import ItemKey, RequestKey
from epd.wire.messages import HandOff, RequestFailed


@dataclass(frozen=True, slots=True)
class Send:
    """Send a control message."""

    to: str
    message: Any


@dataclass(frozen=True, slots=True)
class SendRows:
    """Send rows [first_row, first_row + num_rows) as EmbeddingData parts, in chunks."""

    to: str
    request: RequestKey
    item: ItemKey
    first_row: int
    num_rows: int


@dataclass(frozen=True, slots=True)
class SendKv:
    """Send KV of tokens [first_token, first_token + num_tokens), all layers, in chunks."""

    to: str
    request: RequestKey
    first_token: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class DropSends:
    """Forget the bulk sends of this key that have not been staged yet."""

    key: RequestKey | ItemKey


@dataclass(frozen=True, slots=True)
class Pin:
    """Keep the item's rows until Unpin."""

    item: ItemKey


@dataclass(frozen=True, slots=True)
class Unpin:
    """The item's rows are evictable cache from now on."""

    item: ItemKey


@dataclass(frozen=True, slots=True)
class Free:
    """Give back everything the engine holds for this attempt."""

    request: RequestKey


@dataclass(frozen=True, slots=True)
class StartDecode:
    """All KV and the state are here: decode."""

    state: HandOff


@dataclass(frozen=True, slots=True)
class EndChoice:
    """Nobody needs more tokens of this choice."""

    request: RequestKey
    choice: int


Instruction = Send | SendRows | SendKv | DropSends | Pin | Unpin | Free | StartDecode | EndChoice


def failure(request: RequestKey, error: EpdError) -> RequestFailed:
    """The message that ends an attempt with this error."""
    return RequestFailed(
        request=request, status=error.status, code=error.code, reason=error.message
    )
