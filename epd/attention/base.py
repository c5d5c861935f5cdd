"""What an attention backend is: a plan per step, made on the host, and one forward per layer.

This room reads and writes pages of keys and values; it does not own them and allocates none.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
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
        """The batch of a step together with who can read its plan."""
        return StepAttention(self, batch)


@dataclass(frozen=True, slots=True)
class SingleTokens:
    """A batch in which every sequence has one new token, for kernels that find their own slots.

    `tables` [sequences, blocks of the longest] and `lengths` [sequences], the new token counted,
    are int32 on the CPU; a shorter sequence's table ends with zeros.
    """

    keys: torch.Tensor
    values: torch.Tensor
    block_size: int
    tables: torch.Tensor
    lengths: torch.Tensor


class StepAttention(Generic[P]):
    """Attention of one step: what travels through the model as the keyword `plan`."""

    def __init__(self, backend: AttentionBackend[P], batch: PagedBatch) -> None:
        self.num_new = batch.num_new
        self._backend = backend
        self._batch = batch

    @property
    def sequences(self) -> tuple[PagedSequence, ...]:
        """Of a packed batch."""
        assert isinstance(self._batch, PagedBatch)
        return self._batch.sequences

    @cached_property
    def _plan(self) -> P:
        """Made by the first layer that asks: a step of single tokens may never need it."""
        return self._backend.plan(self._batch)

    def single_tokens(self) -> SingleTokens | None:
        """None where any sequence has more than one new token."""
        batch = self._batch
        if any(sequence.num_new != 1 for sequence in batch.sequences):
            return None
        lengths = [sequence.kv_len for sequence in batch.sequences]
        width = -(-max(lengths) // batch.block_size)
        tables = [list(sequence.blocks[:width]) for sequence in batch.sequences]
        return SingleTokens(
            keys=batch.keys,
            values=batch.values,
            block_size=batch.block_size,
            tables=torch.tensor(
                [table + [0] * (width - len(table)) for table in tables], dtype=torch.int32
            ),
            lengths=torch.tensor(lengths, dtype=torch.int32),
        )

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
