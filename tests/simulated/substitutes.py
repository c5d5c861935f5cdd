"""Operators that the host has not, or not for what a GPU takes: computed in another way."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F

aten = torch.ops.aten


def counted(values: torch.Tensor, *args: Any) -> torch.Tensor:
    """aten::histc, of integers too."""
    return torch.histc(values.float(), *args).to(values.dtype)


def flash(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    ends: torch.Tensor,
    key_ends: torch.Tensor,
    longest: int,
    longest_key: int,
    dropout: float,
    causal: bool,
    debug: bool,
    *,
    scale: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, ...]:
    """aten::_flash_attention_forward of sequences of several lengths, [T, heads, dim]."""
    if query.dtype not in (torch.float16, torch.bfloat16) or ends.dtype != torch.int32:
        raise RuntimeError("FlashAttention takes 16 bits, and ends of int32")
    places = ends.tolist()
    lengths = [end - begin for begin, end in pairwise(places)]
    if longest < max(lengths) or places[-1] != len(query) or not torch.equal(ends, key_ends):
        raise RuntimeError("ends that are not those of the sequences")
    out = torch.empty_like(query)
    for begin, end in pairwise(places):
        q, k, v = (each[begin:end].transpose(0, 1).float() for each in (query, key, value))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)
        out[begin:end] = attended.transpose(0, 1)
    nothing = torch.zeros(2, dtype=torch.int64)
    return out, torch.zeros(query.shape[1], len(query)), nothing, nothing[:0], out[:0].clone()


FOR: dict[Any, Callable[..., Any]] = {
    aten.histc.default: counted,
    aten._flash_attention_forward.default: flash,
}
