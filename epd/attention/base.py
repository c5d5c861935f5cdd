"""What an attention backend is: a plan per step, made on the host, and one forward per layer.

This room reads and writes pages of keys and values; it does not own them and allocates none.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class PagedSequence:
    """One request's part of a packed batch.

    Its `num_new` tokens are the last of `kv_len`; `blocks` hold at least `kv_len` tokens.
    """

    num_new: int
    kv_len: int
    blocks: Sequence[int]


@dataclass(frozen=True, slots=True)
class PagedBatch:
    """A packed batch and the pages it works on.

    The sequences' new tokens stand one after the other. `keys` and `values` are
    [layers, slots, kv_heads, head_dim]; slot = block * block_size + offset.
    """

    sequences: tuple[PagedSequence, ...]
    keys: torch.Tensor
    values: torch.Tensor
    block_size: int

    @property
    def num_new(self) -> int:
        """Tokens in the packed forward."""
        return sum(sequence.num_new for sequence in self.sequences)


class AttentionBackend(ABC, Generic[P]):
    """Causal attention over paged keys and values. Each backend types its own plan."""

    @abstractmethod
    def plan(self, batch: PagedBatch) -> P:
        """Everything that is equal for all layers of one step, tensors on the pages' device."""

    @abstractmethod
    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        layer: int,
        scaling: float,
        plan: P,
    ) -> torch.Tensor:
        """Write the new keys and values to their pages, then attend.

        `query` is [heads, T, head_dim], `key` and `value` [kv_heads, T, head_dim], all rotated.
        Returns [T, heads, head_dim].
        """

    def bind(self, batch: PagedBatch) -> StepAttention[P]:
        """The plan of a step together with who can read it."""
        return StepAttention(self, self.plan(batch), batch.num_new)


class StepAttention(Generic[P]):
    """Attention of one step: what travels through the model as the keyword `plan`."""

    def __init__(self, backend: AttentionBackend[P], plan: P, num_new: int) -> None:
        self.num_new = num_new
        self._backend = backend
        self._plan = plan

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        layer: int,
        scaling: float,
    ) -> torch.Tensor:
        """See AttentionBackend.forward."""
        return self._backend.forward(
            query, key, value, layer=layer, scaling=scaling, plan=self._plan
        )
