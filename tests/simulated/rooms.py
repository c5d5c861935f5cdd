"""Tensors of the device and of the host: the same bytes under two names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from tests.simulated.card import POISON, card
from tests.simulated.order import Use

_memory: Any = torch.ops.simulated


def host(tensor: torch.Tensor) -> torch.Tensor:
    """The device's bytes, as a tensor of the host."""
    made: torch.Tensor = _memory.host(tensor)
    return made


def lent(tensor: torch.Tensor, *, device: int, fresh: bool) -> torch.Tensor:
    """The host's bytes, as a tensor of the device; fresh: nobody has written them yet."""
    if fresh:
        poison(tensor)
    made: torch.Tensor = _memory.device(tensor, device)
    room = _memory.number(made)
    if room and room not in card.rooms:
        card.lend(room, tensor.untyped_storage().nbytes())
    return made


def become(tensor: torch.Tensor, other: torch.Tensor) -> None:
    """Take the other one's shape and bytes."""
    _memory.become(tensor, other)


def room(tensor: torch.Tensor) -> int:
    """Its room's number, or minus its address where it is on the host."""
    return int(_memory.number(tensor)) or -tensor.untyped_storage().data_ptr()


def use(tensor: torch.Tensor, *, writes: bool) -> Use:
    """From the first byte that it reaches to the last."""
    begin = int(tensor.storage_offset()) * tensor.itemsize
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    length = sum((size - 1) * step for size, step in steps) + 1 if tensor.numel() else 0
    return Use(room(tensor), begin, begin + length * tensor.itemsize, writes)


def bytes_of(tensor: torch.Tensor) -> bytes:
    """What the host has there."""
    flat = tensor.detach().contiguous().view(-1)
    return flat.view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def poison(tensor: torch.Tensor) -> None:
    """Its bytes are nothing that anybody would want."""
    if tensor.is_contiguous() and tensor.numel():
        tensor.view(-1).view(torch.uint8).fill_(POISON)


def mapped(values: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The same arguments with other tensors."""
    if isinstance(values, torch.Tensor):
        return change(values)
    if isinstance(values, (list, tuple)):
        return type(values)([mapped(each, change) for each in values])
    if isinstance(values, dict):
        return {name: mapped(each, change) for name, each in values.items()}
    return values


def tensors(values: Any) -> Iterator[torch.Tensor]:
    """All of them, in order."""
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, dict):
        yield from tensors(list(values.values()))
    elif isinstance(values, (list, tuple)):
        for each in values:
            yield from tensors(each)
