"""x W^T where every row has a W of its own, of a few experts' in e4m3 with factors for blocks.

Bytes: an expert's weight is read once for each ROWS rows that took it, and not at all where none
did; at n k (1 + 1/1024) bytes it is half of what it takes in 16 bits. A step of t tokens with k
choices among E reads min(E, t k) of them at most. Rows are read where they lie and written where
they belong, so putting them into the order of experts moves no row: a gather before and a scatter
behind would read and write each of the t k rows twice more.

Which expert a program works for follows from where experts end among the sorted rows, so a host
never waits for routing, and a CUDA graph holds whatever is routed. How many programs that may need
is known: no expert leaves more than one tile of rows in part.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from epd.attention.kernels import interpreted, power_of_two
from epd.attention.kernels.blocks import BLOCK, FEW_ROWS, Tiles, narrow, stages, sum_of_blocks


def tiles(rows: int, experts: int, *, item: int) -> Tiles:
    """For so many rows in all, of `item` bytes per value. Follows from shapes alone."""
    each = -(-rows // experts)
    if each <= FEW_ROWS:
        return Tiles(power_of_two(each, 16), 64, 1)
    return Tiles(128 if item == 1 else 64, 128, 1)


def product(
    x: torch.Tensor,
    sources: torch.Tensor | None,
    weight: torch.Tensor,
    factors: torch.Tensor,
    ends: torch.Tensor,
    targets: torch.Tensor | None,
    *,
    rows: int,
    narrows: bool,
    knows_e4m3: bool,
) -> torch.Tensor:
    """[., k] x [E, n, k] e4m3 -> [rows, n] in the dtype of x: row i is of the expert that has it.

    Experts have `rows` one after the other, and `ends` [E] int32 says where each one's end. Row i
    is x[sources[i]], its product goes to [targets[i]]; both are [rows] int64, or None where they
    are i. `factors` [E, n / 128, k / 128, both rounded up] float32. All are contiguous. `narrows`
    and `knows_e4m3` as in blocks.product.
    """
    experts, n, k = weight.shape
    given, row_factors = narrow(x) if narrows else (x, None)
    cut = tiles(rows, experts, item=given.element_size())
    out = torch.empty(rows, n, dtype=x.dtype, device=x.device)
    most = min(rows, experts) + rows // cut.rows
    _experts[(most, triton.cdiv(n, cut.columns))](
        given,
        row_factors,
        sources,
        targets,
        weight if knows_e4m3 else weight.view(torch.uint8),
        factors,
        ends,
        out,
        EXPERTS=experts,
        EXPERTS_PAD=power_of_two(experts),
        N=n,
        K=k,
        ROWS=cut.rows,
        COLUMNS=cut.columns,
        BLOCK=BLOCK,
        BITS=not knows_e4m3,
        WIDE=interpreted(),
        num_warps=8 if cut.rows * cut.columns >= 4096 else 4,
        num_stages=stages(cut, given.element_size()),
    )
    return out


@triton.jit
def _experts(
    x,
    row_factors,  # of x in e4m3; else None
    sources,
    targets,
    weight,
    factors,
    ends,
    out,
    EXPERTS: tl.constexpr,
    EXPERTS_PAD: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
    BITS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """A tile of the result, all of one expert; or nothing, where all tiles are others'."""
    blocks: tl.constexpr = (K + BLOCK - 1) // BLOCK
    tile = tl.program_id(0)
    experts = tl.arange(0, EXPERTS_PAD)
    known = experts < EXPERTS
    end = tl.load(ends + experts, mask=known, other=0)
    begin = tl.load(ends + experts - 1, mask=known & (experts > 0), other=0)
    num_tiles = (end - begin + ROWS - 1) // ROWS
    last_tile = tl.cumsum(num_tiles, 0)
    first_tile = last_tile - num_tiles
    mine = (tile >= first_tile) & (tile < last_tile)  # one at most
    expert = tl.sum(tl.where(mine, experts, 0), 0).to(tl.int64)
    first = tl.sum(tl.where(mine, begin + (tile - first_tile) * ROWS, 0), 0)
    last = tl.sum(tl.where(mine, end, 0), 0)
    row = first + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    real, there = row < last, column < N
    source = row.to(tl.int64)
    target = row.to(tl.int64)
    if sources is not None:
        source = tl.load(sources + row, mask=real, other=0)
    if targets is not None:
        target = tl.load(targets + row, mask=real, other=0)
    rows_of_blocks: tl.constexpr = (N + BLOCK - 1) // BLOCK
    total = sum_of_blocks(
        x,
        row_factors,
        source,
        real,
        weight + expert * N * K,
        column,
        there,
        factors + (expert * rows_of_blocks + tl.program_id(1) * COLUMNS // BLOCK) * blocks,
        0,
        tl.where(first < last, blocks, 0),
        K,
        BITS,
        WIDE,
    )
    at = target[:, None] * N + column[None, :]
    tl.store(out + at, total.to(out.dtype.element_ty), mask=real[:, None] & there[None, :])
