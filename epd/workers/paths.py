"""How the gateway learns the path of a request: from what it tells workers and hears from them."""

from __future__ import annotations

from typing import Any

from epd.cluster import asked_as
from epd.observe.path import Path
from epd.wire.messages import (
    Admit,
    EncodeItem,
    ItemSpans,
    LayoutReady,
    Refused,
    RequestSpans,
)

_OF_ITEMS = frozenset({EncodeItem, LayoutReady, ItemSpans})
_OF_REQUESTS = frozenset({Admit, Refused, RequestSpans})


def request_of(message: Any) -> str | None:
    """The client's request that a message is a step of; None for all others, tokens first."""
    kind = type(message)
    if kind in _OF_ITEMS:
        return asked_as(message.item.request_id)
    return asked_as(message.request.request_id) if kind in _OF_REQUESTS else None


def told(path: Path, to: str, message: Any) -> None:
    """The gateway sends something out."""
    match message:
        case EncodeItem():
            path.sent_item(message.item.index, to)
        case Admit():
            key = message.request
            path.sent_request(key.request_id, key.attempt, to, message.decode)


def heard(path: Path, sender: str, message: Any, now: float) -> None:
    """A worker says something."""
    match message:
        case LayoutReady():
            path.laid_out_item(message.item.index, message.layout.num_rows)
        case Refused():
            path.refused(message.request.request_id, message.request.attempt)
        case ItemSpans():
            path.encoded(
                sender,
                message.item.index,
                message.spans,
                now,
                origin=message.origin,
                num_bytes=message.num_bytes,
                batch_items=message.batch_items,
            )
        case RequestSpans():
            for rows in message.rows:
                path.pulled(
                    sender,
                    rows.index,
                    rows.transfer,
                    now,
                    num_rows=rows.num_rows,
                    num_bytes=rows.num_bytes,
                )
            path.worked(sender, message.stage, message.spans, now, num_bytes=message.num_bytes)
            chunks = ((one.num_tokens, one.ago_ms, one.ms) for one in message.chunks)
            path.computed(sender, chunks, now)
