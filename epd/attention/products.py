"""Attention as products of matrices: on a CPU that multiplies bfloat16, two to three times as fast
as torch's fused attention, which there computes in float32.

Scores are rounded to bfloat16, as transformers' own eager attention does.
"""

from __future__ import annotations

from itertools import groupby

import torch

MOST_SCORES = 1 << 22
"""Of one product: bounds its temporary memory."""

CAUSAL_ROWS = 64
"""At once, where a row sees no token behind its own: the keys that none of them sees are left out.
More rows leave out less, fewer are slower products."""


def has_bf16_instructions() -> bool:
    """Can this CPU multiply bfloat16 without widening it first?"""
    cpu = torch.cpu
    return bool(cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())


def takes(device: torch.device, dtype: torch.dtype) -> bool:
    """Is this the fastest way here?"""
    return device.type == "cpu" and dtype is torch.bfloat16 and has_bf16_instructions()


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """[heads, T, dim], and [kv_heads, L, dim] twice -> [heads, T, dim].

    `bias` [T, L] of their dtype is added to scores: the T rows are the last of L tokens, and none
    sees a token behind its own. Without one all see all. The query heads of one KV head are rows
    of one product.
    """
    heads, num, dim = query.shape
    kv_heads, length = key.shape[:2]
    at_once = max(1, MOST_SCORES // (heads * length))
    if bias is not None:
        at_once = min(at_once, CAUSAL_ROWS)
    grouped = query.reshape(kv_heads, heads // kv_heads, num, dim)
    outs = []
    for first in range(0, num, at_once):
        rows = slice(first, first + at_once)
        asked = grouped[:, :, rows] * scaling
        seen = length if bias is None else min(length, length - num + rows.stop)
        scores = asked.flatten(1, 2) @ key[:, :seen].transpose(1, 2)
        if bias is not None:
            scores.view(*asked.shape[:3], seen).add_(bias[rows, :seen])
        out = scores.softmax(-1) @ value[:, :seen]
        outs.append(out.view(heads, -1, dim))
    return outs[0] if len(outs) == 1 else torch.cat(outs, 1)


def attend_varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    ends: torch.Tensor,
    longest: int,
    scaling: float,
) -> torch.Tensor:
    """See epd.attention.towers.Kernel. Neighbours of one length go together."""
    heads, dim = query.shape[1:]
    outs, start = [], 0
    for length, same in groupby(ends.diff().tolist()):
        num = len(list(same))
        rows = slice(start, start + num * length)
        start = rows.stop
        q, k, v = (
            each[rows].view(num, length, heads, dim).transpose(1, 2).reshape(-1, length, dim)
            for each in (query, key, value)
        )
        out = attend(q, k, v, scaling).view(num, heads, length, dim)
        outs.append(out.transpose(1, 2).reshape(-1, heads, dim))
    return torch.cat(outs)
