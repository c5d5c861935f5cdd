"""What a worker says about a request, as an event of the gateway's requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from epd.cluster.instructions import Instruction
from epd.cluster.ownership import Ownership
from epd.wire.messages import (
    Admitted,
    Holding,
    ItemDone,
    ItemFailed,
    LayoutReady,
    PromptLogprobs,
    Refused,
    RequestFailed,
    Reserved,
    Room,
    RowsLost,
    Tokens,
)

Event = Callable[[Ownership, str, Any], list[Instruction]]

_EVENTS: Final[dict[type[Any], Event]] = {
    Admitted: Ownership.admitted,
    Holding: Ownership.holding,
    ItemDone: Ownership.item_done,
    ItemFailed: Ownership.item_failed,
    LayoutReady: Ownership.layout,
    PromptLogprobs: lambda owner, sender, message: owner.prompt_logprobs(message),
    Refused: Ownership.refused,
    RequestFailed: Ownership.request_failed,
    Reserved: Ownership.reserved,
    Room: lambda owner, sender, message: owner.room(),
    RowsLost: Ownership.rows_lost,
    Tokens: lambda owner, sender, message: owner.tokens(sender, message.runs),
}


def hear(owner: Ownership, sender: str, message: object) -> list[Instruction] | None:
    """What is to be done about it; None for a message that is about no request."""
    event = _EVENTS.get(type(message))
    return None if event is None else event(owner, sender, message)
