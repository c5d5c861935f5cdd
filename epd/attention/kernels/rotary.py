"""Rotation of a tower's queries and keys, each half of a vector against the other.

Bytes, for x bytes of queries in 16 bits and as many of keys: both are read and written, 4 x, with
the cosines and sines of every patch once, in one launch. transformers' function does either in
seven: it widens (3 x), multiplies (4 x), turns halves (2 x to negate one, 4 x to join them),
multiplies (4 x), adds (6 x) and narrows (3 x), and reads the cosines and sines twice: 52 x.

What is turned is dense, as attention wants it. In place it would take the same here, and in towers
that make q, k and v in one product attention would copy it again: 4 x.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from epd.attention.kernels import power_of_two


def rotate_patches(
    query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """[T, heads, dim] twice and [T, dim] twice -> query and key turned in float32, contiguous.

    What is given may be parts of one product; only vectors must be dense.
    """
    num, heads, dim = query.shape
    assert key.shape == query.shape and cos.shape == sin.shape == (num, dim) and dim % 2 == 0
    assert {each.stride(-1) for each in (query, key, cos, sin)} == {1}
    turned = query.new_empty(query.shape), key.new_empty(key.shape)
    _rotate[(num,)](
        query,
        key,
        *turned,
        cos,
        sin,
        query.stride(0),
        query.stride(1),
        key.stride(0),
        key.stride(1),
        cos.stride(0),
        sin.stride(0),
        HEADS=heads,
        HEADS_PAD=power_of_two(heads),
        HALF=dim // 2,
        HALF_PAD=power_of_two(dim // 2),
        num_warps=4,
    )
    return turned


@triton.jit
def _rotate(
    query,
    key,
    turned_query,
    turned_key,
    cos,
    sin,
    query_row,
    query_head,
    key_row,
    key_head,
    cos_row,
    sin_row,
    HEADS: tl.constexpr,
    HEADS_PAD: tl.constexpr,
    HALF: tl.constexpr,
    HALF_PAD: tl.constexpr,
):
    """All heads of one patch."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.arange(0, HEADS_PAD)[:, None]
    left = tl.arange(0, HALF_PAD)[None, :]
    there = left < HALF
    here = (head < HEADS) & there
    cos += row * cos_row + left
    sin += row * sin_row + left
    cos_left = tl.load(cos, mask=there, other=0.0).to(tl.float32)
    cos_right = tl.load(cos + HALF, mask=there, other=0.0).to(tl.float32)
    sin_left = tl.load(sin, mask=there, other=0.0).to(tl.float32)
    sin_right = tl.load(sin + HALF, mask=there, other=0.0).to(tl.float32)
    query += row * query_row + head * query_head + left
    key += row * key_row + head * key_head + left
    dense = (row * HEADS + head) * (2 * HALF) + left
    _turn(query, turned_query + dense, here, cos_left, cos_right, sin_left, sin_right, HALF)
    _turn(key, turned_key + dense, here, cos_left, cos_right, sin_left, sin_right, HALF)


@triton.jit
def _turn(given, to, here, cos_left, cos_right, sin_left, sin_right, HALF: tl.constexpr):
    """`given` and `to` are the places of the left halves."""
    left = tl.load(given, mask=here, other=0.0).to(tl.float32)
    right = tl.load(given + HALF, mask=here, other=0.0).to(tl.float32)
    turned_left = left * cos_left - right * sin_left
    turned_right = right * cos_right + left * sin_right
    tl.store(to, turned_left.to(to.dtype.element_ty), mask=here)
    tl.store(to + HALF, turned_right.to(to.dtype.element_ty), mask=here)
