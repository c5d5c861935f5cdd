"""The likeliest token without all of the head's weights, which are a quarter of what a step reads.

A head's product is exact here: bytes beside its weights tell which outputs may be the largest, and
only those are computed, from the weights; see screen.h.
"""

from __future__ import annotations

import torch

from epd.models.compiled.kernels import MOST_ROWS, Screen
from epd.models.compiled.streamed import TILE_OUT, Streamed

_LARGEST = 127
_ZERO = 128  # bytes have no sign
_LANES, _FOUR = 16, 4  # of bytes.h
_HALF = 2.0 / (4 * 127 * 256)  # of a step of x, in two bytes, over the largest of its values
_AT_ONCE = 64  # tiles, while bytes are made


class Screened:
    """A product without bias, and its bytes: one more for each weight."""

    def __init__(self, streamed: Streamed) -> None:
        tiles, inputs = len(streamed.tiles), streamed.product.input
        kernels = streamed.kernels
        self._streamed = streamed
        fours, lanes = -(-inputs // _FOUR), TILE_OUT // _LANES
        shape = (tiles, lanes, fours, _LANES, _FOUR)
        self._bytes = kernels.empty(*shape, dtype=torch.uint8)
        self._scale = torch.empty(tiles, TILE_OUT)
        self._error = torch.empty(tiles, TILE_OUT)
        for first in range(0, tiles, _AT_ONCE):
            self._fill(slice(first, min(tiles, first + _AT_ONCE)))
        self.nbytes = self._bytes.nbytes + self._scale.nbytes + self._error.nbytes
        self._screen = Screen(
            bytes=self._bytes.data_ptr(),
            scale=self._scale.data_ptr(),
            error=self._error.data_ptr(),
        )

    def _fill(self, some: slice) -> None:
        """Bytes of some tiles, and how far from the weights they are, rounded up."""
        weights = self._streamed.tiles[some].double().transpose(2, 3).flatten(1, 2)
        scale = (weights.abs().amax(1) / _LARGEST).float().clamp_min(1e-30)
        rounded = (weights / scale[:, None]).round().clamp(-_LARGEST, _LARGEST)
        self._bytes[some] = self._laid_out(rounded + _ZERO)
        self._scale[some] = scale
        inputs, length = weights.shape[1], weights.norm(dim=1)
        off = (weights - rounded * scale[:, None].double()).norm(dim=1)
        # Twice what a float32 sum of so many products can be off, in whatever order; for both sums.
        summing = inputs * 2.0**-23 * (2 * length + off)
        asking = inputs**0.5 * _HALF * (length + off)
        self._error[some] = ((off + summing + asking) * (1 + 1e-6)).float()

    def _laid_out(self, values: torch.Tensor) -> torch.Tensor:
        """[tiles, inputs, 32] -> [tiles, 2, inputs / 4, 16, 4] in bytes; see bytes.h."""
        tiles, inputs, _ = values.shape
        padded = torch.zeros(tiles, -(-inputs // _FOUR) * _FOUR, TILE_OUT, dtype=torch.uint8)
        padded[:, :inputs] = values.to(torch.uint8)
        return padded.view(tiles, -1, _FOUR, TILE_OUT // _LANES, _LANES).permute(0, 3, 1, 4, 2)

    def takes(self, x: torch.Tensor) -> bool:
        """Are these few enough rows? With more, the whole product is no slower."""
        return len(x) <= MOST_ROWS

    def likeliest(self, x: torch.Tensor) -> torch.Tensor:
        """[N, in] -> [N] int64: the first of the largest outputs of each row.

        -1 where one that may be the largest is not finite.
        """
        ids = torch.empty(len(x), dtype=torch.int64)
        streamed = self._streamed
        streamed.kernels.likeliest(streamed.product, self._screen, x.contiguous(), ids)
        return ids


def screened(head: object) -> Screened | None:
    """None where the head's weights are not ours to read in tiles, or have a bias."""
    streamed = getattr(head, "streamed", None)
    if not isinstance(streamed, Streamed) or streamed.bias is not None:
        return None
    return Screened(streamed)
