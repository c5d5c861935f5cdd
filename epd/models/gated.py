"""The gated product that most models end a layer with, its activation in one pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

_CHILDREN = {"gate_proj", "up_proj", "down_proj", "act_fn"}
_SILU = ("SiLU", "SiLUActivation")


class GatedMlp(nn.Module):
    """down(silu(gate(x)) * up(x)). `gate_up` makes both products side by side, or `gated` all that
    `down` takes.
    """

    def __init__(
        self,
        gate_up: nn.Module,
        down_proj: nn.Module,
        silu_mul: Callable[[torch.Tensor], torch.Tensor],
        gated: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.gate_up = gate_up
        self.down_proj = down_proj
        self._silu_mul = silu_mul
        self._gated = gated

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., hidden] -> [..., hidden]."""
        inner = self._gated(x) if self._gated else self._silu_mul(self.gate_up(x))
        out: torch.Tensor = self.down_proj(inner)
        return out


def is_gated(module: Any) -> bool:
    """Made of exactly these children, with this activation."""
    named = dict(module.named_children())
    return set(named) == _CHILDREN and is_silu(named["act_fn"])


def is_silu(activation: object) -> bool:
    """torch's class, or transformers' own."""
    return type(activation).__name__ in _SILU
