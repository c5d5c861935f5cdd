"""Short ways to say messages and prompts in the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from epd.handoff import Send
from epd.types import (
    ItemKey,
    ItemLayout,
    Modality,
    Prompt,
    PromptItem,
    RequestKey,
    SamplingParams,
)
from epd.wire import messages as m

R = RequestKey("r", 1)
AGAIN = RequestKey("r", 2)
OTHER = RequestKey("other", 1)
PAYLOAD = m.Payload(dtype="float32", shape=(1,), nbytes=4)


def item(index: int = 0, attempt: int = 1) -> ItemKey:
    """An item of request "r"."""
    return ItemKey("r", index, attempt)


def layout(num_rows: int) -> ItemLayout:
    """One span of rows and nothing else."""
    return ItemLayout(
        modality=Modality.IMAGE,
        token_ids=(9,) * num_rows,
        row_spans=((0, num_rows),),
        width=1,
        dtype="float32",
        content_key=b"key",
    )


def prompt(*num_rows: int, encoder: str = "encode") -> Prompt:
    """One text token around items of so many rows, all at one encoder."""
    items = tuple(
        PromptItem(item=item(index), encoder=encoder, layout=layout(num))
        for index, num in enumerate(num_rows)
    )
    return Prompt(text=((1,),) * (len(items) + 1), items=items)


def pull(
    first: int, num: int, *, index: int = 0, attempt: int = 1, request: RequestKey = R
) -> m.PullRows:
    """PullRows for rows [first, first + num)."""
    key = item(index, attempt)
    return m.PullRows(request=request, item=key, first_row=first, num_rows=num)


def part(
    first: int, num: int, *, index: int = 0, attempt: int = 1, request: RequestKey = R
) -> m.EmbeddingData:
    """EmbeddingData with rows [first, first + num)."""
    return m.EmbeddingData(
        request=request, item=item(index, attempt), first_row=first, num_rows=num, payload=PAYLOAD
    )


def lost(reason: str, *, index: int = 0, attempt: int = 1, request: RequestKey = R) -> m.RowsLost:
    """RowsLost of one item."""
    return m.RowsLost(request=request, item=item(index, attempt), reason=reason)


def chunk(
    first: int, num: int, *, layer: int = 0, layers: int = 2, request: RequestKey = R
) -> m.KvChunk:
    """KvChunk of tokens [first, first + num) x layers [layer, layer + layers)."""
    return m.KvChunk(
        request=request,
        first_token=first,
        num_tokens=num,
        first_layer=layer,
        num_layers=layers,
        payload=PAYLOAD,
    )


def kv_ready(num: int, *, request: RequestKey = R) -> m.KvReady:
    """KV of the first `num` tokens exists."""
    return m.KvReady(request=request, num_tokens=num)


def pull_kv(first: int, num: int, *, request: RequestKey = R) -> m.PullKv:
    """PullKv for tokens [first, first + num)."""
    return m.PullKv(request=request, first_token=first, num_tokens=num)


def hand_off(
    num_prompt: int, *, choices: tuple[tuple[int, int], ...] = ((0, 7),), request: RequestKey = R
) -> m.HandOff:
    """The state of a request with one sampled token, unless `choices` says otherwise."""
    return m.HandOff(
        request=request,
        token_ids=(7,) * num_prompt,
        choices=choices,
        position_delta=0,
        sampling=SamplingParams(),
        first_index=0,
    )


def sent(instructions: Sequence[object], to: str) -> list[Any]:
    """The messages among the instructions that go to this peer."""
    return [i.message for i in instructions if isinstance(i, Send) and i.to == to]
