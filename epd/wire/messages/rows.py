"""Embedding rows, pulled by prefill workers from encode workers."""

from __future__ import annotations

from dataclasses import dataclass

from epd.types import ItemKey, RequestKey
from epd.wire.messages.registry import Payload, message


@message("rows.pull")
@dataclass(frozen=True, slots=True, kw_only=True)
class PullRows:
    """Prefill -> encode: send rows [first_row, first_row + num_rows) when they exist.

    A pull is the credit: an encoder never sends a row that was not asked for.
    """

    request: RequestKey
    item: ItemKey
    first_row: int
    num_rows: int


@message("rows.data")
@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingData:
    """Encode -> prefill, bulk: one part of an item, rows [first_row, first_row + num_rows).

    The payload is [num_rows, width], row-major, in the layout's dtype. Parts of one item may
    arrive in any order and more than once.
    """

    request: RequestKey
    item: ItemKey
    first_row: int
    num_rows: int
    payload: Payload


@message("rows.taken")
@dataclass(frozen=True, slots=True, kw_only=True)
class RowsTaken:
    """Prefill -> encode: the part was copied; its slot (if any) may be reused."""

    slot: int
    item: ItemKey


@message("rows.release")
@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRows:
    """Prefill -> encode: this attempt will pull the item no more. The last one to say so makes its
    rows evictable."""

    request: RequestKey
    item: ItemKey


@message("rows.lost")
@dataclass(frozen=True, slots=True, kw_only=True)
class RowsLost:
    """Encode -> prefill -> gateway: the rows are gone (evicted, or the encoder failed or died).

    The gateway encodes the item again and answers prefill with ItemMoved, or fails the request.
    """

    request: RequestKey
    item: ItemKey
    reason: str


@message("rows.moved")
@dataclass(frozen=True, slots=True, kw_only=True)
class ItemMoved:
    """Gateway -> prefill: pull the rest of the item under this, its newest, key from `encoder`."""

    request: RequestKey
    item: ItemKey
    encoder: str
