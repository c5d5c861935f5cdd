"""aten::copy_: on the device, from the host and to it."""

from __future__ import annotations

from functools import partial

import torch

from tests.simulated import rooms
from tests.simulated.calls import Call
from tests.simulated.card import card

OP = torch.ops.aten.copy_.default


@torch.inference_mode()
def copy(to: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    """Between pinned memory and the device nobody waits for it, if asked so."""
    if to.is_cuda and (source.is_cuda or not source.dim()):
        _there(to, source)
    elif card.recording is not None:
        raise RuntimeError("a graph would copy from the host or to it")
    elif to.is_cuda:
        _from_host(to, source, waits=not (non_blocking and source.is_pinned()))
    else:
        _to_host(to, source, waits=not (non_blocking and to.is_pinned()))
    return to


def _there(to: torch.Tensor, source: torch.Tensor) -> None:
    call = Call(OP, (to, source), {})
    if card.recording is not None:
        card.recording.note(call)
        return
    if not source.is_cuda:
        card.synchronize("copy of a number from the host")
    call.compute()
    card.launch(call.uses(), "copy")


def _from_host(to: torch.Tensor, source: torch.Tensor, *, waits: bool) -> None:
    if waits:
        card.synchronize("copy from the host")
    rooms.host(to).copy_(source)
    time = card.launch([rooms.use(to, writes=True)], "copy from the host")
    if waits:
        card.wait(card.order.clock(card.stream))
    else:
        card.later(time, partial(_unchanged, source, source.clone(), f"copy to {tuple(to.shape)}"))


def _unchanged(source: torch.Tensor, before: torch.Tensor, by: str) -> None:
    if rooms.bytes_of(source) != rooms.bytes_of(before):
        card.order.faults.append(f"{by}: the host wrote to its source before it was done")


def _to_host(to: torch.Tensor, source: torch.Tensor, *, waits: bool) -> None:
    values = rooms.host(source).clone()
    if waits:
        card.synchronize("copy to the host")
        to.copy_(values)
        return
    time = card.launch([rooms.use(source, writes=False)], "copy to the host")
    rooms.poison(to)
    card.later(time, partial(_arrive, to, values))


@torch.inference_mode()
def _arrive(to: torch.Tensor, values: torch.Tensor) -> None:
    to.copy_(values)
