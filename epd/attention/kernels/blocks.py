"""x W^T where W lies in float8_e4m3fn and every block of 128 x 128 of it has a factor.

Bytes, for a weight [n, k]: few rows are bound by reading it, and here it is read once, at n k bytes
with n k / 4096 of factors: half of what it takes in 16 bits, so at best half the time. It is
widened in registers; turning it into 16 bits first would read n k, write 2 n k and read them again.
Where columns alone make too few programs to draw a card's bandwidth, sums over k are split, and a
second kernel adds the parts: 8 bytes more per value of the result and part.

Many rows are bound by arithmetic, which cards from compute capability 8.9 do twice as fast in 8
bits. So the rows become e4m3 too, with a factor for every 128 values of a row: in 16 bits 2 k bytes
are read and k (1 + 1/32) written per row, once. Other cards widen the weights for many rows too.

Sums over 128 products have one pair of factors; they are made, scaled and added in float32.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from epd.attention import kernels
from epd.attention.kernels import interpreted, power_of_two

BLOCK = 128
LARGEST = 448.0
"""Of e4m3."""

FEW_ROWS = 64
"""That are bound by reading weights: an H100 does 148 products per weight in 16 bits meanwhile,
and some of that is lost in widening them."""

MOST_SPLITS = 16
_LEAST_BLOCKS = 4  # that a part of a sum is worth
_GROUPS = 32  # of 128 values, that a program of `_narrow` holds


class Tiles(NamedTuple):
    """Of the result, how much a program makes, and in how many parts its sum is made."""

    rows: int
    columns: int
    splits: int


def tiles(rows: int, n: int, k: int, *, cores: int, item: int) -> Tiles:
    """For a weight [n, k] and rows of `item` bytes per value, on a card of so many processors.

    Follows from shapes alone. A program reads its rows again from the cache, so wide tiles read
    less of them; one row is so little that narrow ones, which are many, read the weight fastest.
    """
    if rows <= 4:
        wide = [columns for columns in (64, 32) if n >= 2 * cores * columns]
        return Tiles(16, wide[0] if wide else 16, 1)
    if rows <= FEW_ROWS:
        tall, columns, wanted = power_of_two(rows, 16), 64, 2 * cores
    else:
        tall, columns, wanted = (128, 128, cores) if item == 1 else (64, 128, 2 * cores)
    programs = -(-rows // tall) * -(-n // columns)
    most = min(MOST_SPLITS, max(1, -(-k // BLOCK) // _LEAST_BLOCKS), max(1, wanted // programs))
    return Tiles(tall, columns, power_of_two(most + 1) // 2)


def narrow(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[rows, k] -> [rows, k] e4m3 and [rows, k / 128, rounded up] float32, whose product is x."""
    rows, k = x.shape
    groups = -(-k // BLOCK)
    small = torch.empty(rows, k, dtype=torch.float8_e4m3fn, device=x.device)
    factors = torch.empty(rows, groups, dtype=torch.float32, device=x.device)
    at_once = power_of_two(min(groups, _GROUPS))
    _narrow[(rows, triton.cdiv(groups, at_once))](
        x, small, factors, K=k, GROUPS=at_once, ROUNDS=interpreted(), num_warps=4
    )
    return small, factors


def product(
    x: torch.Tensor,
    weight: torch.Tensor,
    factors: torch.Tensor,
    bias: torch.Tensor | None,
    *,
    narrows: bool,
    knows_e4m3: bool,
) -> torch.Tensor:
    """[rows, k] x [n, k] e4m3 -> [rows, n] in the dtype of x. `bias` [n] is added.

    `factors` [n / 128, k / 128, both rounded up] float32. All are contiguous. `narrows`: rows are
    made e4m3 too. `knows_e4m3`: the card widens it with one instruction.
    """
    rows, k = x.shape
    n = len(weight)
    given, row_factors = narrow(x) if narrows else (x, None)
    cut = tiles(rows, n, k, cores=kernels.processors(x.device), item=given.element_size())
    out = torch.empty(rows, n, dtype=x.dtype, device=x.device)
    whole = cut.splits == 1
    parts = out if whole else out.new_empty(cut.splits, rows, n, dtype=torch.float32)
    _product[(triton.cdiv(rows, cut.rows), triton.cdiv(n, cut.columns), cut.splits)](
        given,
        row_factors,
        weight if knows_e4m3 else weight.view(torch.uint8),
        factors,
        bias if whole else None,
        parts,
        rows,
        N=n,
        K=k,
        ROWS=cut.rows,
        COLUMNS=cut.columns,
        BITS=not knows_e4m3,
        WIDE=interpreted(),
        num_warps=8 if cut.rows * cut.columns >= 4096 else 4,
        num_stages=stages(cut, given.element_size()),
    )
    if not whole:
        tile = 1024
        _add[(rows, triton.cdiv(n, tile))](
            parts, bias, out, rows, N=n, SPLITS=cut.splits, TILE=tile, num_warps=4
        )
    return out


def stages(cut: Tiles, item: int) -> int:
    """Tiles on their way from memory: no more than every card's programs may have, 96 KiB.

    Widened weights may need a place beside them.
    """
    widened = cut.columns * item if item > 1 else 0
    return max(2, min(8, ((96 << 10) // BLOCK - widened) // (cut.rows * item + cut.columns)))


@triton.jit
def _narrow(x, small, factors, K: tl.constexpr, GROUPS: tl.constexpr, ROUNDS: tl.constexpr):
    """GROUPS times 128 values of one row."""
    row = tl.program_id(0).to(tl.int64)
    groups: tl.constexpr = (K + 127) // 128
    group = tl.program_id(1) * GROUPS + tl.arange(0, GROUPS)
    at = group[:, None] * 128 + tl.arange(0, 128)[None, :]
    value = tl.load(x + row * K + at, mask=at < K, other=0.0).to(tl.float32)
    most = tl.max(tl.abs(value), 1)
    factor = tl.where(most > 0, most / 448.0, 1.0)
    narrowed = value / factor[:, None]
    if ROUNDS:
        narrowed = _rounded(narrowed)
    tl.store(small + row * K + at, narrowed.to(small.dtype.element_ty), mask=at < K)
    tl.store(factors + row * groups + group, factor, mask=group < groups)


@triton.jit
def _rounded(value):
    """To the nearest that e4m3 has, even ones first, which Triton's interpreter does not do.

    Adding what has a last place as large as the value's step, and taking it away again.
    """
    exponent = tl.maximum((value.to(tl.int32, bitcast=True) >> 23) & 255, 121)
    large = ((exponent + 20) << 23).to(tl.float32, bitcast=True) * 1.5
    return (value + large) - large


@triton.jit
def sum_of_blocks(
    x,
    row_factors,
    row,  # int64, of x
    real,
    weight,
    column,  # of the result, all in one row of blocks, whose factors are at factor_row
    there,
    factor_row,
    first,  # block of the sum, up to but without `end`
    end,
    K: tl.constexpr,
    BITS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """A tile of x W^T, or of one part of its sum, in float32."""
    blocks: tl.constexpr = (K + 127) // 128
    inner = tl.arange(0, 128)
    total = tl.zeros((row.shape[0], column.shape[0]), tl.float32)
    for block in range(first, end):
        k = block * 128 + inner
        given = tl.load(
            x + row[:, None] * K + k[None, :], mask=real[:, None] & (k < K)[None, :], other=0.0
        )
        # As [128, COLUMNS], the way a product takes them.
        w = tl.load(
            weight + column[None, :].to(tl.int64) * K + k[:, None],
            mask=there[None, :] & (k < K)[:, None],
            other=0.0,
        )
        factor = tl.load(factor_row + block)
        if BITS:
            w = _widened(w)
            factor *= 256.0
        if row_factors is None:
            w = w.to(given.dtype)
        if WIDE:
            given, w = given.to(tl.float32), w.to(tl.float32)
        found = tl.dot(given, w, input_precision="ieee")
        if row_factors is not None:
            of_row = tl.load(row_factors + row * blocks + block, mask=real, other=0.0)
            found = found * of_row[:, None]
        total += found * factor
    return total


@triton.jit(do_not_specialize=["rows"])
def _product(
    x,
    row_factors,  # of x in e4m3; else None
    weight,
    factors,
    bias,
    parts,
    rows,
    N: tl.constexpr,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BITS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """A tile of the result, or of one part of its sum. Its columns are in one row of blocks."""
    blocks: tl.constexpr = (K + 127) // 128
    split, splits = tl.program_id(2), tl.num_programs(2)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    real, there = row < rows, column < N
    row = row.to(tl.int64)
    factor_row = factors + tl.program_id(1) * COLUMNS // 128 * blocks
    per_split = tl.cdiv(blocks, splits)
    first, end = split * per_split, tl.minimum((split + 1) * per_split, blocks)
    total = sum_of_blocks(
        x, row_factors, row, real, weight, column, there, factor_row, first, end, K, BITS, WIDE
    )
    if bias is not None:
        total += tl.load(bias + column, mask=there, other=0.0).to(tl.float32)[None, :]
    at = (split * rows + row[:, None]) * N + column[None, :]
    tl.store(parts + at, total.to(parts.dtype.element_ty), mask=real[:, None] & there[None, :])


@triton.jit
def _widened(bits):
    """e4m3 in bytes to float16 with the same sign, exponent and fraction: a 256th of the value."""
    wide = bits.to(tl.uint16)
    return (((wide & 128) << 8) | ((wide & 127) << 7)).to(tl.float16, bitcast=True)


@triton.jit(do_not_specialize=["rows"])
def _add(parts, bias, out, rows, N: tl.constexpr, SPLITS: tl.constexpr, TILE: tl.constexpr):
    """A tile of one row: the parts of its sums, in their order."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * TILE + tl.arange(0, TILE)
    here = column < N
    total = tl.zeros((TILE,), tl.float32)
    for split in range(SPLITS):
        at = (split * rows + row) * N + column
        total += tl.load(parts + at, mask=here, other=0.0)
    if bias is not None:
        total += tl.load(bias + column, mask=here, other=0.0).to(tl.float32)
    tl.store(out + row * N + column, total.to(out.dtype.element_ty), mask=here)
