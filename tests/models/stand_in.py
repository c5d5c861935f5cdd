"""The smallest attention that a LanguageModel can run on: packed sequences, no cache.

Its plan is the list of their lengths. It shows that a plan reaches every layer, without the paged
attention of a higher room's tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F

NAME = "packed_stand_in"


@dataclass
class Packed:
    """Sequences laid end to end; `layers` collects who was handed the plan."""

    lengths: list[int]
    layers: list[int] = field(default_factory=list)


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    plan: Packed,
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    assert attention_mask is None
    plan.layers.append(module.layer_idx)
    parts = zip(*(torch.split(t, plan.lengths, dim=2) for t in (query, key, value)), strict=True)
    outs = [
        F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True)
        for q, k, v in parts
    ]
    return torch.cat(outs, dim=2).transpose(1, 2), None


def register() -> None:
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _attend)


@contextmanager
def attention() -> Iterator[None]:
    """While a language model is loaded: it gets this attention instead of the paged one."""
    with (
        patch("epd.attention.ATTENTION", NAME, create=True),
        patch("epd.attention.register", register, create=True),
    ):
        yield
