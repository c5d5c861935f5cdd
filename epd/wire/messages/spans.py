"""The path of a request: what each worker says of its own part. Nobody waits for these messages."""

from __future__ import annotations

from dataclasses import dataclass

from epd.types import ItemKey, Origin, RequestKey, Span, Stage
from epd.wire.messages.registry import message


@message("spans.item")
@dataclass(frozen=True, slots=True, kw_only=True)
class ItemSpans:
    """Encode -> gateway, before the item's LayoutReady and before its rows are sent: all that is
    known of it so far.

    `origin` None: it has no rows yet. `num_bytes` is the size of its files; `batch_items` counts
    the items of its tower forward, 0 where there was none.
    """

    item: ItemKey
    origin: Origin | None
    num_bytes: int
    batch_items: int
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsIn:
    """Rows of the request's item number `index` that a prefill worker pulled."""

    index: int
    num_rows: int
    num_bytes: int
    transfer: Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A step that gave KV to `num_tokens` tokens of a prompt, in times as a Span has them."""

    num_tokens: int
    ago_ms: float
    ms: float


@message("spans.request")
@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSpans:
    """Prefill or decode -> gateway, before the tokens that end the part: what it took there.

    Decode says so twice: when it starts, and before the last tokens. `num_bytes` counts the KV that
    came. A fused worker speaks for both stages. `chunks` are prefill's steps in order, of a long
    prompt the last of many in one.
    """

    request: RequestKey
    stage: Stage
    spans: tuple[Span, ...]
    rows: tuple[RowsIn, ...] = ()
    chunks: tuple[Chunk, ...] = ()
    num_bytes: int = 0
