"""One head of the language model learns to look at the thing that an answer is about.

To answer "what colour is the star?" is to find it. Left to the answers' loss alone this comes late,
long after the words around it; told where to look, the head learns it in a few hundred steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from demo.collate import Batch

LAYER, HEAD = 2, 0
"""Behind two layers that can gather what is asked for; a layer ahead of the last."""

_LEAST = 1e-4


class Pointing:
    """Keeps the weights of that layer's attention, which has to run uncompiled."""

    def __init__(self, language: Any) -> None:
        self._weights: torch.Tensor | None = None
        self._watches = False
        language.layers[LAYER].self_attn.register_forward_hook(self._keep)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Forwards in here are those that loss() is about."""
        self._watches = True
        try:
            yield
        finally:
            self._watches = False

    def _keep(self, module: Any, given: Any, made: tuple[torch.Tensor, torch.Tensor]) -> None:
        if self._watches:
            self._weights = made[1]  # [rows, heads, length, length]

    def loss(self, batch: Batch) -> tuple[torch.Tensor, float]:
        """Of the forward before; and the share of its attention that the head gives to the thing.

        A token looks where the one that follows it is to come from.
        """
        assert self._weights is not None
        weights, self._weights = self._weights[:, HEAD, :-1], None
        about = batch.about[:, 1:]
        row, place = (about > 0).nonzero(as_tuple=True)
        if not len(row):
            return weights.new_zeros(()), 0.0
        wanted = batch.shown[row] == about[row, place][:, None]
        share = (weights[row, place].float() * wanted).sum(-1)
        return -share.clamp(min=_LEAST).log().mean(), float(share.detach().mean())
