"""torch's operators on tensors of the card: computed on the host, told to the card."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from tests.simulated import copies, rooms
from tests.simulated.calls import Call
from tests.simulated.card import card

aten = torch.ops.aten


def run(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Stands for the kernels of CUDA, all of them."""
    with card.lock:
        card.settle()
        if op in SPECIAL:
            return SPECIAL[op](*args, **kwargs)
        call = Call(op, args, kwargs)
        call.check()
        if card.recording is not None:
            return card.recording.note(call)
        uses = call.uses()
        out = rooms.mapped(call.compute(), partial(call.named, fresh=call.fresh))
        call.grow()
        new = call.new(out)
        if not call.fresh and (new or not call.views):
            card.launch([*uses, *new], call.name)
        return out


def record_stream(tensor: torch.Tensor, stream: torch.Stream) -> None:
    """aten::record_stream."""
    card.order.used_by(rooms.room(tensor), stream.stream_id)


def choose_attention(*args: Any, **kwargs: Any) -> int:
    """aten::_fused_sdp_choice: by its definition, out of matrix products."""
    return 0


SPECIAL: dict[Any, Callable[..., Any]] = {
    aten.copy_.default: copies.copy,
    aten.record_stream.default: record_stream,
    aten._fused_sdp_choice.default: choose_attention,
}

COMPOSITE = (aten.copy_.default,)
"""torch has one kernel for all devices, which looks in vain for a part for CUDA."""


def register() -> list[torch.library.Library]:
    """For as long as what it gives is held."""
    library: Any = torch.library.Library
    every, named = library("_", "IMPL"), library("aten", "IMPL")
    every.fallback(run, "CUDA")
    for op in COMPOSITE:
        named.impl(op, partial(run, op), "CUDA")
    return [every, named]
