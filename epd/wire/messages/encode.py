"""Items: gateway and encode workers."""

from __future__ import annotations

from dataclasses import dataclass

from epd.types import ItemForm, ItemKey, ItemLayout, MediaOptions, Modality
from epd.wire.messages.registry import message


@message("encode.item")
@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeItem:
    """Gateway -> encode: turn this item into rows. Answered by LayoutReady or ItemFailed.

    `url` says where to fetch it, or the bytes are the one raw frame after it: its pieces, one
    behind the other, of which `pieces` has (name, bytes). `text_before` is the prompt's text since
    its last special token. `salt` is the tenant's and goes into the content key. `wanted`: its
    consumer already waits, so the rows are kept until pulled or dropped. `hold`: its KV may be
    cached, so the tower waits for RunTower or the first pull. `cost` is what it may take, in the
    gateway's unit. Nobody waits for it after `deadline_ms` from now; 0: for ever.
    """

    item: ItemKey
    modality: Modality
    url: str | None
    text_before: str
    form: ItemForm = ItemForm.FILE
    pieces: tuple[tuple[str, int], ...] = ()
    options: MediaOptions = MediaOptions()
    salt: str = ""
    wanted: bool = False
    hold: bool = False
    cost: int = 1
    deadline_ms: int = 0


@message("encode.layout")
@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutReady:
    """Encode -> gateway: what the item becomes in the prompt. Sent before the tower runs."""

    item: ItemKey
    layout: ItemLayout


@message("encode.done")
@dataclass(frozen=True, slots=True, kw_only=True)
class ItemDone:
    """Encode -> gateway: the tower made the item's rows. It takes nothing here but memory."""

    item: ItemKey


@message("encode.run")
@dataclass(frozen=True, slots=True, kw_only=True)
class RunTower:
    """Gateway -> encode: the item that was to be held is needed after all."""

    item: ItemKey


@message("encode.failed")
@dataclass(frozen=True, slots=True, kw_only=True)
class ItemFailed:
    """Encode -> gateway: the item cannot be encoded; fields of an EpdError.

    With the code `overloaded` it was refused and may go to another worker; this one expects to have
    room after `retry_after_ms`.
    """

    item: ItemKey
    status: int
    code: str
    reason: str
    retry_after_ms: int = 0


@message("encode.drop")
@dataclass(frozen=True, slots=True, kw_only=True)
class DropItem:
    """Gateway -> encode: the item's consumer is gone. Later messages of this key are refused."""

    item: ItemKey
