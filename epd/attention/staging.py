"""Small index tensors of a step: made on the host, sent to the device as one."""

from __future__ import annotations

from collections.abc import Sequence

import torch

# int32 values in 16 bytes. Kernels are compiled again for a pointer that is aligned otherwise.
_ALIGNED = 4


def send(parts: Sequence[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """int32 tensors of the CPU -> the same on `device`, in one copy that nothing waits for."""
    sizes = [-(-part.numel() // _ALIGNED) * _ALIGNED for part in parts]
    whole = torch.zeros(sum(sizes), dtype=torch.int32, pin_memory=device.type == "cuda")
    for part, piece in zip(parts, torch.split(whole, sizes), strict=True):
        piece[: part.numel()] = part.flatten()
    sent = torch.split(whole.to(device, non_blocking=True), sizes)
    return [piece[: part.numel()].view(part.shape) for piece, part in zip(sent, parts, strict=True)]
