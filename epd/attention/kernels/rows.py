"""Embedding rows into the packed batch: in place of embedded ids, and added to deeper layers.

Bytes, for k rows of h bytes each: to put them, h k are read and written; a slice of a row that a
deeper layer adds is read where it lies among the row's others, with the hidden state, and one sum
is written: 3 h k. Laying the slices of a level together first (a stack) costs 2 h k more, and a
copy of a whole batch of T tokens, to put rows in, 2 h T.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_TILE = 1024


def put_rows(batch: torch.Tensor, places: torch.Tensor, rows: torch.Tensor) -> None:
    """batch[places] = rows: [T, n] contiguous, [k] int64, [k, n] with dense vectors."""
    _launch(batch, places, rows, add=False)


def add_rows(batch: torch.Tensor, places: torch.Tensor, rows: torch.Tensor) -> None:
    """batch[places] += rows, where no place comes twice. Shapes as in put_rows()."""
    _launch(batch, places, rows, add=True)


def _launch(batch: torch.Tensor, places: torch.Tensor, rows: torch.Tensor, *, add: bool) -> None:
    num, n = rows.shape
    assert batch.is_contiguous() and batch.shape[1] == n and rows.stride(1) == 1
    grid = (num, triton.cdiv(n, _TILE))
    _rows[grid](batch, places, rows, n, rows.stride(0), ADD=add, TILE=_TILE, num_warps=4)


@triton.jit
def _rows(batch, places, rows, n, row_stride, ADD: tl.constexpr, TILE: tl.constexpr):
    """A tile of one row."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * TILE + tl.arange(0, TILE)
    here = column < n
    to = batch + tl.load(places + row) * n + column
    value = tl.load(rows + row * row_stride + column, mask=here, other=0.0)
    if ADD:
        old = tl.load(to, mask=here, other=0.0).to(tl.float32)
        value = (old + value.to(tl.float32)).to(batch.dtype.element_ty)
    tl.store(to, value, mask=here)
