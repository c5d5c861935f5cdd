"""Rotation of queries and keys put off until the pass that writes keys to their pages.

transformers' attention layers rotate and then call the attention function with what came of it. A
layer that is marked here calls a rotation that only remembers what it was given; the attention
function finds it again by the tensors it gets.
"""

from __future__ import annotations

from typing import Any

import torch

from epd.attention.base import Rotary
from epd.errors import InternalError

_MARK = "epd_deferred_rotary"


class DeferredRotary:
    """One rotation of one layer at a time, between its call and that of attention."""

    def __init__(self) -> None:
        self._pending: tuple[torch.Tensor, torch.Tensor, Rotary] | None = None

    def defer(
        self, query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """[1, heads, T, head_dim] twice and [1, T, head_dim] twice -> query and key, unchanged."""
        self._pending = query, key, (cos[0], sin[0])
        return query, key

    def take(self, query: torch.Tensor, key: torch.Tensor) -> Rotary:
        """What these two are still to be turned by. InternalError: they are not what was given."""
        pending, self._pending = self._pending, None
        if pending is None or pending[0] is not query or pending[1] is not key:
            raise InternalError("attention was called with tensors whose rotation was not put off")
        return pending[2]


def mark(layer: Any, deferred: DeferredRotary) -> None:
    """Rotations of this attention layer are put off."""
    setattr(layer, _MARK, deferred)


def deferred_rotary(layer: Any, query: torch.Tensor, key: torch.Tensor) -> Rotary | None:
    """What the layer's query and key are still to be turned by; None if by nothing."""
    deferred = getattr(layer, _MARK, None)
    return None if deferred is None else deferred.take(query, key)
