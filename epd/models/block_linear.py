"""A linear module whose weight stays in FP8, as fine-grained FP8 checkpoints store it.

Its kernel is in epd.attention.kernels.blocks. Where that cannot run, weights become plain as they
are loaded, see epd.models.quantised.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import nn

from epd.attention import kernels
from epd.models.storage import SIDE

_UNITS: Final = (8, 9)
"""Compute capability from which cards multiply FP8."""


class BlockLinear(nn.Module):
    """x W^T + b, in the dtype of x.

    `weight` [out, in] float8_e4m3fn and `weight_scale_inv` [blocks of rows, blocks of columns]
    float32 have the names that they have in checkpoints and in transformers. Rows beyond a few are
    rounded to FP8 before they are multiplied, where the card has units for it and they are in 16
    bits.
    """

    bias: nn.Parameter | None

    def __init__(
        self, weight: torch.Tensor, factors: torch.Tensor, bias: torch.Tensor | None
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.weight_scale_inv = nn.Parameter(factors, requires_grad=False)
        own = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.register_parameter("bias", own)

    @classmethod
    def in_place_of(cls, linear: nn.Linear) -> BlockLinear:
        """Of the same sizes on the same device, to be filled."""
        weight, bias = linear.weight, linear.bias
        rows, columns = (-(-size // SIDE) for size in weight.shape)
        return cls(
            torch.empty(weight.shape, dtype=torch.float8_e4m3fn, device=weight.device),
            torch.empty(rows, columns, dtype=torch.float32, device=weight.device),
            None if bias is None else bias.detach(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out]."""
        from epd.attention.kernels.blocks import FEW_ROWS, product

        rows = x.reshape(-1, self.in_features).contiguous()
        knows = has_units(x.device)
        out = product(
            rows,
            self.weight,
            self.weight_scale_inv,
            self.bias,
            narrows=knows and len(rows) > FEW_ROWS and x.dtype is not torch.float32,
            knows_e4m3=knows,
        )
        return out.view(*x.shape[:-1], self.out_features)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of the same ones the kernels are the same."""
        return self.out_features, self.in_features, int(self.bias is None)

    def multiply(self, rows: int, dtype: torch.dtype) -> None:
        """Its product once."""
        self(self.weight.new_zeros(rows, self.in_features, dtype=dtype))


def has_units(device: torch.device) -> bool:
    """Does it multiply FP8? What is no card does, as the interpreter does."""
    return kernels.capability(device) >= _UNITS if device.type == "cuda" else True


def can_join(linears: Sequence[nn.Linear | BlockLinear]) -> bool:
    """Blocks of the later ones must begin where blocks of the joint weight begin."""
    in_blocks = any(isinstance(linear, BlockLinear) for linear in linears)
    return not in_blocks or all(linear.out_features % SIDE == 0 for linear in linears[:-1])


def joined(linears: Sequence[BlockLinear]) -> BlockLinear:
    """One with the outputs of all of these, which can be joined."""
    biases = [linear.bias.detach() for linear in linears if linear.bias is not None]
    return BlockLinear(
        torch.cat([linear.weight.detach() for linear in linears]),
        torch.cat([linear.weight_scale_inv.detach() for linear in linears]),
        torch.cat(biases) if biases else None,
    )
