"""Attention of single new tokens over paged keys and values, its context read in several parts.

Bytes: a step has to read every key and value of every context once, and reads nothing twice: the
query heads that share a KV head are rows of one tile. A batch of B contexts alone gives B x KV
heads programs, too few to draw a card's bandwidth when batches are small and contexts long; so a
context is split, each part leaves its softmax's sum and a partial result (4 bytes per value of a
query: with 128 tokens in a part and 7 heads in a group, a twentieth of the pages that it reads, and
less the longer it is), and a second kernel joins them.

The number of parts follows from shapes alone; a part's tokens follow from the length, on the
device. So grids never depend on lengths, and a captured launch may be replayed with others.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from epd.attention.kernels import interpreted, power_of_two

# Programs that keep a card's memory busy, per multiprocessor.
PER_PROCESSOR = 4
MOST_SPLITS = 64
LEAST_TOKENS = 128  # that a part is worth
# Tokens that a token sees where nothing limits them: more than there are.
NO_WINDOW = 1 << 30


def num_splits(*, sequences: int, kv_heads: int, most_tokens: int, processors: int) -> int:
    """Parts of every context, a power of two: few kernels are compiled.

    Depends on shapes only: `most_tokens` is what a table can hold.
    """
    wanted = -(-PER_PROCESSOR * processors // (sequences * kv_heads))
    return power_of_two(min(wanted, MOST_SPLITS, max(1, most_tokens // LEAST_TOKENS)))


def decode(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    out: torch.Tensor,
    *,
    tables: torch.Tensor,
    lengths: torch.Tensor,
    block_size: int,
    scaling: float,
    window: int | None,
    splits: int,
) -> None:
    """Write attention of B sequences' last tokens to the first B rows of `out`, [T, heads, dim].

    `query` [heads, T, dim], `keys` and `values` [slots, kv_heads, dim]: their last dimension is
    contiguous. `tables` [B, blocks], `lengths` [B]: int32; a length of 0 gives zeros. `window`: how
    many tokens a token sees, with itself.
    """
    heads, dim = query.shape[0], query.shape[2]
    sequences, kv_heads = len(lengths), keys.shape[1]
    whole = splits == 1
    parts = out if whole else out.new_empty(sequences, heads, splits, dim, dtype=torch.float32)
    sums = out.new_empty(sequences, heads, splits, dtype=torch.float32)
    dim_pad = power_of_two(dim, 16)
    _decode[(sequences, kv_heads, splits)](
        query,
        keys,
        values,
        parts,
        sums,
        tables,
        lengths,
        scaling * 1.4426950408889634,
        NO_WINDOW if window is None else window,
        *query.stride()[:2],
        *keys.stride()[:2],
        *values.stride()[:2],
        tables.stride(0),
        GROUP=heads // kv_heads,
        GROUP_PAD=power_of_two(heads // kv_heads, 16),
        DIM=dim,
        DIM_PAD=dim_pad,
        PAGE=block_size,
        TILE=tile_tokens(dim_pad, keys.dtype),
        WHOLE=whole,
        WIDE=interpreted(),
        num_warps=4,
        num_stages=2,
    )
    if not whole:
        _join[(sequences, heads)](
            parts,
            sums,
            out,
            DIM=dim,
            DIM_PAD=dim_pad,
            SPLITS=splits,
            num_warps=1,
        )


def tile_tokens(dim_pad: int, dtype: torch.dtype) -> int:
    """Tokens whose keys fill 16 KiB: two of these tiles, twice, fit every card's shared memory."""
    return max(16, min(64, (1 << 14) // (dim_pad * dtype.itemsize)))


@triton.jit(do_not_specialize=["window", "table_row"])
def _decode(
    query,
    keys,
    values,
    parts,
    sums,
    tables,
    lengths,
    scaling,  # of scores whose exponentials are to base 2
    window,
    query_head,
    query_row,
    key_slot,
    key_head,
    value_slot,
    value_head,
    table_row,
    GROUP: tl.constexpr,
    GROUP_PAD: tl.constexpr,
    DIM: tl.constexpr,
    DIM_PAD: tl.constexpr,
    PAGE: tl.constexpr,
    TILE: tl.constexpr,
    WHOLE: tl.constexpr,
    WIDE: tl.constexpr,
):
    """One part of one context, for the query heads of one KV head."""
    sequence, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    splits = tl.num_programs(2)
    length = tl.load(lengths + sequence)
    first = tl.maximum(length - window, 0)
    per_split = tl.cdiv(tl.cdiv(length - first, splits), TILE) * TILE
    begin = first + split * per_split
    end = tl.minimum(begin + per_split, length)

    group = tl.arange(0, GROUP_PAD)
    dims = tl.arange(0, DIM_PAD)
    tokens = tl.arange(0, TILE)
    head = kv_head * GROUP + group
    of_group = (group < GROUP)[:, None] & (dims < DIM)[None, :]
    at = head[:, None] * query_head + sequence.to(tl.int64) * query_row + dims[None, :]
    q = tl.load(query + at, mask=of_group, other=0.0)
    if WIDE:
        q = q.to(tl.float32)

    best = tl.full((GROUP_PAD,), -float("inf"), tl.float32)
    total = tl.zeros((GROUP_PAD,), tl.float32)
    found = tl.zeros((GROUP_PAD, DIM_PAD), tl.float32)
    for start in range(begin, end, TILE):
        token = start + tokens
        seen = token < end
        page = tl.load(tables + sequence * table_row + token // PAGE, mask=seen, other=0)
        slot = page.to(tl.int64) * PAGE + token % PAGE
        here = seen[:, None] & (dims < DIM)[None, :]
        k_at = slot[:, None] * key_slot + kv_head * key_head + dims[None, :]
        k = tl.load(keys + k_at, mask=here, other=0.0)
        v_at = slot[:, None] * value_slot + kv_head * value_head + dims[None, :]
        v = tl.load(values + v_at, mask=here, other=0.0)
        if WIDE:
            k, v = k.to(tl.float32), v.to(tl.float32)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scaling
        scores = tl.where(seen[None, :], scores, -float("inf"))
        higher = tl.maximum(best, tl.max(scores, 1))
        chances = tl.exp2(scores - higher[:, None])
        kept = tl.exp2(best - higher)
        total = total * kept + tl.sum(chances, 1)
        found = found * kept[:, None]
        found += tl.dot(chances.to(v.dtype), v, input_precision="ieee")
        best = higher

    found = found / tl.where(total > 0, total, 1.0)[:, None]
    if WHOLE:
        at = (sequence.to(tl.int64) * tl.num_programs(1) * GROUP + head[:, None]) * DIM + dims[
            None, :
        ]
    else:
        of = (sequence.to(tl.int64) * tl.num_programs(1) * GROUP + head) * splits + split
        at = of[:, None] * DIM + dims[None, :]
        share = best + tl.log2(tl.where(total > 0, total, 1.0))
        tl.store(sums + of, share, mask=group < GROUP)
    tl.store(parts + at, found.to(parts.dtype.element_ty), mask=of_group)


@triton.jit
def _join(
    parts,
    sums,
    out,
    DIM: tl.constexpr,
    DIM_PAD: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """The parts of one head of one sequence, each weighted by its share of the whole softmax."""
    sequence, head, heads = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    splits, dims = tl.arange(0, SPLITS), tl.arange(0, DIM_PAD)
    of = (sequence.to(tl.int64) * heads + head) * SPLITS + splits
    sum2 = tl.load(sums + of)
    best = tl.max(sum2, 0)
    weights = tl.exp2(sum2 - tl.where(best == -float("inf"), 0.0, best))
    whole = tl.sum(weights, 0)
    here = (splits >= 0)[:, None] & (dims < DIM)[None, :]
    part = tl.load(parts + of[:, None] * DIM + dims[None, :], mask=here, other=0.0)
    joined = tl.sum(part * weights[:, None], 0) / tl.where(whole > 0, whole, 1.0)
    at = (sequence.to(tl.int64) * heads + head) * DIM + dims
    tl.store(out + at, joined.to(out.dtype.element_ty), mask=dims < DIM)
