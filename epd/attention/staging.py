"""What goes from the host to a device and comes back, so that neither side waits for the other.

On CUDA it goes through pinned memory on a stream of its own, and comes back on another one: what is
sent waits for no step, nor behind what waits for one. torch lends memory anew only when the streams
that it is used in are done with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Protocol

import torch

_cuda: Any = torch.cuda  # much of it is untyped

_ALIGNED: Final = 16
"""Bytes. Kernels are compiled again for a pointer that is aligned otherwise."""


def put(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Tensor of the host or of another device -> device, in the current stream; nothing waits."""
    if device.type == "cuda" and not values.is_cuda:
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device, non_blocking=True)


class Fetched(Protocol):
    """Values on their way to the host."""

    def read(self) -> torch.Tensor:
        """They are here. Waits for them, and for nothing that was asked for later."""


class Staging(Protocol):
    """Of one device."""

    def send(self, parts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Tensors of the host -> the same on the device, in one copy; for the current stream."""

    def fetch(self, values: torch.Tensor) -> Fetched:
        """Begin to read what the current stream makes; nobody writes to it again."""


@cache
def staging_for(device: torch.device) -> Staging:
    """The one that the device needs."""
    return CudaStaging(device) if device.type == "cuda" else HostStaging()


@dataclass(frozen=True, slots=True)
class _Here:
    values: torch.Tensor

    def read(self) -> torch.Tensor:
        return self.values


class HostStaging:
    """Where the device is the host: nothing moves."""

    def send(self, parts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """See Staging."""
        return list(parts)

    def fetch(self, values: torch.Tensor) -> Fetched:
        """See Staging."""
        return _Here(values)


@dataclass(frozen=True, slots=True)
class _Coming:
    values: torch.Tensor
    come: Any

    def read(self) -> torch.Tensor:
        self.come.synchronize()
        return self.values


class CudaStaging:
    """One stream for each direction."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sends = _cuda.Stream(device)
        self._reads = _cuda.Stream(device)

    def send(self, parts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """See Staging."""
        here = torch.empty(sum(map(_room, parts)), dtype=torch.uint8, pin_memory=True)
        for place, part in zip(_places(here, parts), parts, strict=True):
            place.copy_(part)
        ours = _cuda.current_stream(self._device)
        with _cuda.stream(self._sends):
            there = here.to(self._device, non_blocking=True)
        ours.wait_stream(self._sends)
        there.record_stream(ours)
        return _places(there, parts)

    def fetch(self, values: torch.Tensor) -> Fetched:
        """See Staging."""
        here = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        self._reads.wait_stream(_cuda.current_stream(self._device))
        come = _cuda.Event()
        with _cuda.stream(self._reads):
            here.copy_(values, non_blocking=True)
            come.record(self._reads)
        values.record_stream(self._reads)
        return _Coming(here, come)


def _room(part: torch.Tensor) -> int:
    """Bytes that it takes among others."""
    return -(-part.nbytes // _ALIGNED) * _ALIGNED


def _places(whole: torch.Tensor, parts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Where the parts stand in `whole`, uint8: views with their shapes and dtypes."""
    rooms = torch.split(whole, [_room(part) for part in parts])
    return [
        room[: part.nbytes].view(part.dtype).view(part.shape)
        for room, part in zip(rooms, parts, strict=True)
    ]
