"""Weights in the tiles of product.h: few rows read them as fast as memory gives them, and many
rows, on a CPU that multiplies bfloat16, are multiplied as fast as that CPU can; see many.h."""

from __future__ import annotations

import math

import torch

from epd.models.compiled.kernels import MOST_ROWS, Kernels, Product

TILE_OUT, PAIR = 32, 2

FEW_ROWS = 8
"""Up to here reading the weights takes the time."""


def can_stream(weight: torch.Tensor) -> bool:
    """Does [out, in] consist of whole tiles?"""
    return not (weight.shape[0] % TILE_OUT or weight.shape[1] % PAIR)


class Streamed:
    """One bfloat16 weight matrix and its bias, for up to `most_rows` rows at once."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, kernels: Kernels) -> None:
        outputs, inputs = weight.shape
        self.kernels = kernels
        self.most_rows: float = math.inf if kernels.takes_many else MOST_ROWS
        self._weight = kernels.empty(outputs // TILE_OUT, inputs // PAIR, TILE_OUT, PAIR)
        tiles = weight.view(outputs // TILE_OUT, TILE_OUT, inputs // PAIR, PAIR)
        self._weight.copy_(tiles.transpose(1, 2))
        self.bias = bias
        self.nbytes = weight.nbytes + (0 if bias is None else bias.nbytes)
        self.product = Product(
            weight=self._weight.data_ptr(),
            bias=None if bias is None else bias.data_ptr(),
            input=inputs,
            output=outputs,
        )

    @property
    def tiles(self) -> torch.Tensor:
        """[out / 32, in / 2, 32, 2]."""
        return self._weight

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out]."""
        out = x.new_empty(*x.shape[:-1], self.product.output)
        rows = x.reshape(-1, self.product.input).contiguous()
        if len(rows) > FEW_ROWS and self.kernels.takes_many:
            self.kernels.multiply_many(self.product, rows, out)
        else:
            self.kernels.multiply(self.product, rows, out)
        return out

    @property
    def can_gate(self) -> bool:
        """Can gated() be called?"""
        return self.kernels.takes_many and not self.product.output % (2 * TILE_OUT)

    def gated(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] -> silu(first half of the outputs) * second half, [..., out / 2]."""
        out = x.new_empty(*x.shape[:-1], self.product.output // 2)
        rows = x.reshape(-1, self.product.input).contiguous()
        self.kernels.multiply_gated(self.product, rows, out)
        return out
