"""Paged attention for transformers' language models, through its AttentionInterface."""

from __future__ import annotations

from typing import Any

import torch

from epd.attention.base import (
    AttentionBackend,
    NewTokens,
    PagedBatch,
    PagedSequence,
    SingleTokens,
    StepAttention,
)
from epd.attention.choice import Wanted, choose
from epd.attention.rotary import deferred_rotary
from epd.attention.sdpa import SdpaBackend

__all__ = [
    "ATTENTION",
    "AttentionBackend",
    "NewTokens",
    "PagedBatch",
    "PagedSequence",
    "SdpaBackend",
    "SingleTokens",
    "StepAttention",
    "Wanted",
    "attend",
    "choose",
    "register",
]

ATTENTION = "epd_paged"


def register() -> None:
    """Make ATTENTION known to transformers. May be called again.

    It is not registered as a mask function: transformers then builds no mask at all.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, attend)


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    plan: StepAttention[Any],
    scaling: float,
    sliding_window: int | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Called by every attention layer: query [1, heads, T, dim] -> [1, T, heads, dim]."""
    assert attention_mask is None and query.shape[0] == 1 and query.shape[2] == plan.num_new
    out = plan.attend(
        query[0],
        key[0],
        value[0],
        layer=module.layer_idx,
        scaling=scaling,
        window=sliding_window,
        rotary=deferred_rotary(module, query, key),
    )
    return out[None], None
