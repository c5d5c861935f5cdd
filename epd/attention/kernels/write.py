"""Rotates new queries and keys and writes keys and values to their pages, in one pass.

Bytes, per token and layer, with q, k and v the bytes of its heads: q, k and v are read once, q is
written once where it lies, k and v once to their pages: 2 (q + k + v), in one launch. transformers'
rotation negates a half (1), lays halves together (2), multiplies twice (4) and adds (3), each for q
and for k, in five launches each, and two copies to pages follow: 10 q + 12 k + 2 v, in twelve.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from epd.attention.kernels import power_of_two


def write(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    *,
    block_size: int,
    slots: torch.Tensor | None,
    tables: torch.Tensor,
    lengths: torch.Tensor,
    rotary: tuple[torch.Tensor, torch.Tensor] | None,
) -> None:
    """`query` [heads, T, dim], `key` and `value` [kv_heads, T, dim]: last dimension contiguous.

    To `slots` [T] int32 of `keys` and `values`, [slots, kv_heads, dim]; without, row t is the last
    token of sequence t, see SingleTokens. `rotary`: cosines and sines [T, dim], by which key is
    turned on its way and query where it lies; None: both are turned already.
    """
    kv_heads, num_new, dim = key.shape
    group = query.shape[0] // kv_heads
    cos, sin = (key, key) if rotary is None else rotary
    _write[(num_new, kv_heads)](
        query,
        key,
        value,
        keys,
        values,
        cos,
        sin,
        lengths if slots is None else slots,
        tables,
        *query.stride()[:2],
        *key.stride()[:2],
        *value.stride()[:2],
        *keys.stride()[:2],
        *values.stride()[:2],
        cos.stride(0),
        tables.stride(0),
        BY_SLOT=slots is not None,
        TURN=rotary is not None,
        GROUP=group,
        GROUP_PAD=power_of_two(group),
        DIM=dim,
        HALF_PAD=power_of_two(-(-dim // 2)),
        PAGE=block_size,
        num_warps=1,
    )


@triton.jit(do_not_specialize=["table_row"])
def _write(
    query,
    key,
    value,
    keys,
    values,
    cosines,
    sines,
    places,  # slots, or lengths
    tables,
    query_head,
    query_row,
    key_head,
    key_row,
    value_head,
    value_row,
    keys_slot,
    keys_head,
    values_slot,
    values_head,
    angle_row,
    table_row,
    BY_SLOT: tl.constexpr,
    TURN: tl.constexpr,
    GROUP: tl.constexpr,
    GROUP_PAD: tl.constexpr,
    DIM: tl.constexpr,
    HALF_PAD: tl.constexpr,
    PAGE: tl.constexpr,
):
    """One token, one KV head and the query heads that share it. A vector is two halves."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    place = tl.load(places + row)
    if BY_SLOT:
        slot = place.to(tl.int64)
    else:
        last = tl.maximum(place - 1, 0)
        page = tl.load(tables + row * table_row + last // PAGE).to(tl.int64)
        slot = tl.where(place > 0, page * PAGE + last % PAGE, -1)
    HALF: tl.constexpr = DIM // 2
    left = tl.arange(0, HALF_PAD)
    inside = left < HALF
    mine = inside & (left + slot >= left)
    k_at = key + head * key_head + row * key_row + left
    v_at = value + head * value_head + row * value_row + left
    k_left = tl.load(k_at, mask=inside, other=0.0)
    k_right = tl.load(k_at + HALF, mask=inside, other=0.0)
    v_left = tl.load(v_at, mask=inside, other=0.0)
    v_right = tl.load(v_at + HALF, mask=inside, other=0.0)
    if TURN:
        angle = row * angle_row + left
        cos_left = tl.load(cosines + angle, mask=inside, other=0.0).to(tl.float32)
        cos_right = tl.load(cosines + angle + HALF, mask=inside, other=0.0).to(tl.float32)
        sin_left = tl.load(sines + angle, mask=inside, other=0.0).to(tl.float32)
        sin_right = tl.load(sines + angle + HALF, mask=inside, other=0.0).to(tl.float32)
        wide_left, wide_right = k_left.to(tl.float32), k_right.to(tl.float32)
        k_left = (wide_left * cos_left - wide_right * sin_left).to(keys.dtype.element_ty)
        k_right = (wide_right * cos_right + wide_left * sin_right).to(keys.dtype.element_ty)
        heads = tl.arange(0, GROUP_PAD)
        here = (heads < GROUP)[:, None] & inside[None, :]
        q_at = (
            query + (head * GROUP + heads)[:, None] * query_head + row * query_row + left[None, :]
        )
        q_left = tl.load(q_at, mask=here, other=0.0).to(tl.float32)
        q_right = tl.load(q_at + HALF, mask=here, other=0.0).to(tl.float32)
        turned_left = q_left * cos_left[None, :] - q_right * sin_left[None, :]
        turned_right = q_right * cos_right[None, :] + q_left * sin_right[None, :]
        tl.store(q_at, turned_left.to(query.dtype.element_ty), mask=here)
        tl.store(q_at + HALF, turned_right.to(query.dtype.element_ty), mask=here)
    k_to = keys + slot * keys_slot + head * keys_head + left
    v_to = values + slot * values_slot + head * values_head + left
    tl.store(k_to, k_left, mask=mine)
    tl.store(k_to + HALF, k_right, mask=mine)
    tl.store(v_to, v_left, mask=mine)
    tl.store(v_to + HALF, v_right, mask=mine)
