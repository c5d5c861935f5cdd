"""Small index tensors of a step: made on the host, sent to the device as one."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def send(parts: Sequence[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """int32 tensors of the CPU -> the same on `device`, in one copy that nothing waits for."""
    whole = torch.cat([part.flatten() for part in parts])
    if device.type == "cuda":
        whole = whole.pin_memory()
    sent = whole.to(device, non_blocking=True).split([part.numel() for part in parts])
    return [piece.view(part.shape) for piece, part in zip(sent, parts, strict=True)]
