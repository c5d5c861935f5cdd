"""Items on their way to a GPU: processed and copied on a stream beside the one that towers run on.

The threads that prepare items do this and wait for it, so that no tower does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from epd.attention.staging import put

_cuda: Any = torch.cuda  # much of it is untyped


class Uploads:
    """Of one GPU. Any thread may use it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = _cuda.Stream(device)

    @contextmanager
    def beside(self) -> Iterator[None]:
        """What is asked of the GPU in here runs beside the towers."""
        with torch.cuda.stream(self._stream):
            yield

    def send(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Pixels and features, which towers compute with, go there and are there; counts stay.

        Towers read counts and grids on the host.
        """
        sent = {}
        with self.beside():
            for name, tensor in inputs.items():
                sent[name] = put(tensor, self._device) if tensor.is_floating_point() else tensor
        self._stream.synchronize()
        return sent

    def used(self, tensors: Iterable[torch.Tensor]) -> None:
        """Their memory is not lent anew before what the current stream was asked for is done."""
        for tensor in tensors:
            if tensor.is_cuda:
                tensor.record_stream(torch.cuda.current_stream(self._device))


def uploads_for(device: torch.device) -> Uploads | None:
    """None where the towers run on the host."""
    return Uploads(device) if device.type == "cuda" else None
