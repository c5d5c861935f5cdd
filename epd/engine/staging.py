"""What a step sends to the device and reads back, so that neither side waits for the other.

On CUDA it goes through pinned memory on a stream of its own. Several steps may be on their way: a
buffer is written again only when the copy from it, and what the step did with it, are done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

_cuda: Any = torch.cuda  # much of it is untyped
_BUFFERS = 3  # one is filled, one is on its way, one is computed with


class Fetched(Protocol):
    """Values on their way to the host."""

    def read(self) -> torch.Tensor:
        """They are here. Waits for them, and for nothing that was asked for later."""


class Staging(Protocol):
    """Of one device; used by the step thread alone."""

    def send(self, parts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """int64 tensors [n] of the host -> the same on the device, in one copy.

        They stay as they are until the step after the next one is sent.
        """

    def fetch(self, values: torch.Tensor) -> Fetched:
        """Begin to read a tensor of the device, which nobody writes to again."""


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


class _Buffer:
    """A pinned tensor, its copy on the device, and the ends of their last uses."""

    def __init__(self, device: torch.device, size: int) -> None:
        self.host = torch.empty(size, dtype=torch.int64, pin_memory=True)
        self.there = torch.empty(size, dtype=torch.int64, device=device)
        self.copied = _cuda.Event()
        self.used = _cuda.Event()


@dataclass(frozen=True, slots=True)
class _Coming:
    values: torch.Tensor
    source: torch.Tensor  # stays until it has been read
    come: Any

    def read(self) -> torch.Tensor:
        self.come.synchronize()
        return self.values


class CudaStaging:
    """Pinned buffers in turn, and a stream for copies."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._copies = _cuda.Stream(device)
        self._buffers: list[_Buffer | None] = [None] * _BUFFERS
        self._next = 0
        self._last: _Buffer | None = None

    def send(self, parts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """See Staging."""
        sizes = [len(part) for part in parts]
        total = sum(sizes)
        ours = torch.cuda.current_stream(self._device)
        if self._last is not None:
            self._last.used.record(ours)  # all that the step before asked for
        buffer = self._free(total)
        torch.cat(list(parts), out=buffer.host[:total])
        self._copies.wait_event(buffer.used)
        with torch.cuda.stream(self._copies):
            buffer.there[:total].copy_(buffer.host[:total], non_blocking=True)
            buffer.copied.record(self._copies)
        ours.wait_event(buffer.copied)
        self._last = buffer
        return list(torch.split(buffer.there[:total], sizes))

    def fetch(self, values: torch.Tensor) -> Fetched:
        """See Staging."""
        there = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        self._copies.wait_stream(torch.cuda.current_stream(self._device))
        come = _cuda.Event()
        with torch.cuda.stream(self._copies):
            there.copy_(values, non_blocking=True)
            come.record(self._copies)
        return _Coming(there, values, come)

    def _free(self, size: int) -> _Buffer:
        """The buffer whose turn it is. Its last copy is done for long, if not it is waited for."""
        at, self._next = self._next, (self._next + 1) % _BUFFERS
        buffer = self._buffers[at]
        if buffer is None or len(buffer.host) < size:
            # An old one goes back to torch, which lends it again when the streams are done with it.
            old = 0 if buffer is None else len(buffer.host)
            if buffer is not None:
                buffer.there.record_stream(self._copies)
            buffer = self._buffers[at] = _Buffer(self._device, max(size, 2 * old, 4096))
        else:
            buffer.copied.synchronize()
        return buffer
