"""Causal attention of chunks of new tokens, packed end to end, over paged keys and values.

Bytes: keys and values are read where they lie, once per tile of queries and through the cache for
the heads that share them; gathering a context first, as the reference does, writes it and reads it
again. Arithmetic: tiles that the mask hides whole are never multiplied.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from epd.attention.kernels import interpreted, power_of_two
from epd.attention.kernels.decode import NO_WINDOW, tile_tokens

MOST_QUERIES = 128


def tile_queries(longest: int, dim: int, dtype: torch.dtype) -> int:
    """Queries in a tile, for chunks of at most `longest` tokens: what registers hold of them."""
    size = power_of_two(dim, 64) * dtype.itemsize
    most = MOST_QUERIES * 256 // size // (2 if dtype is torch.float32 else 1)
    return min(MOST_QUERIES, most, power_of_two(longest, 16))


def prefill(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    out: torch.Tensor,
    *,
    tables: torch.Tensor,
    tiles: torch.Tensor,
    tile: int,
    block_size: int,
    scaling: float,
    window: int | None,
) -> None:
    """Write attention of the rows that `tiles` name to the same rows of `out`, [T, heads, dim].

    `query` [heads, T, dim], `keys` and `values` [slots, kv_heads, dim]: their last dimension is
    contiguous. `tiles` [n, 4] int32: row of `tables`, first packed row, that row's place in its
    sequence, and how many rows, at most `tile`. `window`: how many tokens a token sees, with
    itself.
    """
    heads, dim = query.shape[0], query.shape[2]
    dim_pad = power_of_two(dim, 16)
    _prefill[(len(tiles), heads)](
        query,
        keys,
        values,
        out,
        tables,
        tiles,
        scaling * 1.4426950408889634,
        NO_WINDOW if window is None else window,
        *query.stride()[:2],
        *keys.stride()[:2],
        *values.stride()[:2],
        tables.stride(0),
        GROUP=heads // keys.shape[1],
        DIM=dim,
        DIM_PAD=dim_pad,
        PAGE=block_size,
        QUERIES=tile,
        TILE=tile_tokens(dim_pad, keys.dtype),
        WIDE=interpreted(),
        num_warps=8 if tile > 64 else 4,
        num_stages=2,
    )


@triton.jit(do_not_specialize=["window", "table_row"])
def _prefill(
    query,
    keys,
    values,
    out,
    tables,
    tiles,
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
    DIM: tl.constexpr,
    DIM_PAD: tl.constexpr,
    PAGE: tl.constexpr,
    QUERIES: tl.constexpr,
    TILE: tl.constexpr,
    WIDE: tl.constexpr,
):
    """One tile of one query head."""
    head, heads = tl.program_id(1), tl.num_programs(1)
    kv_head = head // GROUP
    table = tl.load(tiles + 4 * tl.program_id(0))
    first_row = tl.load(tiles + 4 * tl.program_id(0) + 1)
    place = tl.load(tiles + 4 * tl.program_id(0) + 2)
    num = tl.load(tiles + 4 * tl.program_id(0) + 3)

    queries = tl.arange(0, QUERIES)
    dims = tl.arange(0, DIM_PAD)
    row = (first_row + queries).to(tl.int64)
    real = (queries < num)[:, None] & (dims < DIM)[None, :]
    q_at = head * query_head + row[:, None] * query_row + dims[None, :]
    q = tl.load(query + q_at, mask=real, other=0.0)
    if WIDE:
        q = q.to(tl.float32)

    begin = tl.maximum(place - window + 1, 0) // TILE * TILE
    end = place + num
    best = tl.full((QUERIES,), -float("inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    found = tl.zeros((QUERIES, DIM_PAD), tl.float32)
    for start in range(begin, end, TILE):
        token = start + tl.arange(0, TILE)
        there = token < end
        page = tl.load(tables + table * table_row + token // PAGE, mask=there, other=0)
        slot = page.to(tl.int64) * PAGE + token % PAGE
        here = there[:, None] & (dims < DIM)[None, :]
        k_at = slot[:, None] * key_slot + kv_head * key_head + dims[None, :]
        k = tl.load(keys + k_at, mask=here, other=0.0)
        v_at = slot[:, None] * value_slot + kv_head * value_head + dims[None, :]
        v = tl.load(values + v_at, mask=here, other=0.0)
        if WIDE:
            k, v = k.to(tl.float32), v.to(tl.float32)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scaling
        after = (place + queries)[:, None] - token[None, :]
        seen = (after >= 0) & (after < window) & there[None, :]
        scores = tl.where(seen, scores, -float("inf"))
        higher = tl.maximum(best, tl.max(scores, 1))
        finite = tl.where(higher == -float("inf"), 0.0, higher)  # a window may hide a whole tile
        chances = tl.exp2(scores - finite[:, None])
        kept = tl.exp2(best - finite)
        total = total * kept + tl.sum(chances, 1)
        found = found * kept[:, None]
        found += tl.dot(chances.to(v.dtype), v, input_precision="ieee")
        best = higher

    found = found / tl.where(total > 0, total, 1.0)[:, None]
    at = (row[:, None] * heads + head) * DIM + dims[None, :]
    tl.store(out + at, found.to(out.dtype.element_ty), mask=real)
