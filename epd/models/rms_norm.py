"""Root mean square normalisation in fewer passes over the hidden states."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from epd.models.compiled.kernels import LANES, Kernels


class RmsNorm(nn.Module):
    """What transformers' RMSNorm classes of the Llama kind compute, with the same roundings.

    Only the squares are summed in another order: one operation makes the norm, without a tensor of
    squares, and the others work in place; or `kernels` do all in one pass.
    """

    def __init__(self, weight: nn.Parameter, eps: float, *, kernels: Kernels | None = None) -> None:
        super().__init__()
        self.weight = weight
        self.eps = eps
        self._eps = torch.tensor(eps)
        fits = weight.dtype is torch.bfloat16 and not len(weight) % LANES
        self._kernels = kernels if fits else None

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[..., n] -> [..., n], normalised in float32."""
        if self._kernels and hidden.dtype is torch.bfloat16 and hidden.is_contiguous():
            return self._kernels.rms_norm(hidden, self.weight, self.eps)
        wide = hidden.to(torch.float32, copy=True)
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        scale = torch.add(self._eps, norm.square_(), alpha=1 / hidden.shape[-1]).rsqrt_()
        return self.weight * wide.mul_(scale).to(hidden.dtype)


def is_rms_norm(module: Any) -> bool:
    """The classes that follow Llama's: float32 inside, a plain factor, this name for epsilon."""
    names = {"weight", "variance_epsilon"}
    return type(module).__name__.endswith("RMSNorm") and all(hasattr(module, n) for n in names)
