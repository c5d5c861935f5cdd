"""Weights in the tiles of product.h, which few rows read as fast as memory gives them."""

from __future__ import annotations

import torch

from epd.models.compiled.kernels import MOST_ROWS, Kernels, Product

TILE_OUT, PAIR = 32, 2


def can_stream(weight: torch.Tensor) -> bool:
    """Does [out, in] consist of whole tiles?"""
    return not (weight.shape[0] % TILE_OUT or weight.shape[1] % PAIR)


class Streamed:
    """One bfloat16 weight matrix and its bias, for up to `most_rows` rows at once."""

    most_rows = MOST_ROWS

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, kernels: Kernels) -> None:
        outputs, inputs = weight.shape
        self.kernels = kernels
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
        self.kernels.multiply(self.product, rows, out)
        return out
