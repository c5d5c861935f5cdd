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

from epd.errors import InternalError

P = TypeVar("P")

Rotary = tuple[torch.Tensor, torch.Tensor]
"""Cosines and sines [T, head_dim] by which the vectors of each row are still to be turned."""


def rotate(vectors: torch.Tensor, rotary: Rotary) -> torch.Tensor:
    """[heads, T, head_dim]: each half of a vector is turned against the other."""
    cos, sin = rotary
    left, right = vectors.chunk(2, -1)
    return vectors * cos + torch.cat((-right, left), -1) * sin


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


@dataclass(frozen=True, slots=True)
class SingleTokens:
    """A batch in which every sequence has one new token, for kernels that find their own slots.

    `tables` [sequences, blocks] and `lengths` [sequences], the new token counted, are int32: on
    the CPU for one step, or on the pages' device, in memory that stays where it is, for many (see
    AttentionBackend.decode_plan). What stands behind the last block of a sequence in its table is
    never followed.
    """

    keys: torch.Tensor
    values: torch.Tensor
    block_size: int
    tables: torch.Tensor
    lengths: torch.Tensor

    @property
    def num_new(self) -> int:
        """Tokens in the packed forward."""
        return len(self.lengths)


@dataclass(frozen=True, slots=True)
class NewTokens:
    """A packed batch for kernels of the CPU that find their own slots.

    `tables` [sequences, blocks], `lengths` [sequences], the new tokens counted, and `counts`
    [sequences], how many are new, are int32.
    """

    keys: torch.Tensor
    values: torch.Tensor
    block_size: int
    tables: torch.Tensor
    lengths: torch.Tensor
    counts: torch.Tensor
    num_new: int

    @property
    def single(self) -> bool:
        """Has every sequence one new token?"""
        return self.num_new == len(self.counts)


class AttentionBackend(ABC, Generic[P]):
    """Causal attention over paged keys and values. Each backend types its own plan."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What the configuration calls it."""

    @property
    def capturable(self) -> bool:
        """May a decode step be captured in a CUDA graph, with decode_plan()?"""
        return False

    @property
    def rotates(self) -> bool:
        """Does forward() rotate queries and keys itself, in the pass that writes keys?"""
        return False

    @abstractmethod
    def plan(self, batch: PagedBatch) -> P:
        """Everything that is equal for all layers of one step, tensors on the pages' device."""

    def decode_plan(self, tokens: SingleTokens) -> P:
        """A plan over `tables` and `lengths` on the device, read anew whenever forward() runs.

        Neither this nor forward() with it looks at their values on the host, so a captured forward
        may be replayed with others: grids and shapes depend on the tensors' shapes alone. A
        sequence of length 0 stands for nothing: nothing is written for it, its output is 0.
        """
        raise InternalError(f"a decode step of the attention backend {self.name} is not capturable")

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
        window: int | None = None,
        rotary: Rotary | None = None,
    ) -> torch.Tensor:
        """Write the new keys and values to their pages, then attend.

        `query` is [heads, T, head_dim], `key` and `value` [kv_heads, T, head_dim], rotated but for
        `rotary`, which only a backend that `rotates` is given; it may rotate `query` where it lies.
        `window`: how many tokens a token sees at most, with itself. Returns [T, heads, head_dim].
        """

    def bind(self, batch: PagedBatch | SingleTokens) -> StepAttention[P]:
        """The batch of a step together with who can read its plan.

        SingleTokens, on the device, where the step is to be captured.
        """
        return StepAttention(self, batch)


class StepAttention(Generic[P]):
    """Attention of one step: what travels through the model as the keyword `plan`."""

    def __init__(self, backend: AttentionBackend[P], batch: PagedBatch | SingleTokens) -> None:
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
        if isinstance(self._batch, SingleTokens):
            return self._backend.decode_plan(self._batch)
        return self._backend.plan(self._batch)

    def new_tokens(self) -> NewTokens:
        """Of a packed batch on the CPU."""
        assert isinstance(self._batch, PagedBatch)
        return new_tokens(self._batch)

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        layer: int,
        scaling: float,
        window: int | None = None,
        rotary: Rotary | None = None,
    ) -> torch.Tensor:
        """See AttentionBackend.forward; any backend takes `rotary` here."""
        if rotary is not None and not self._backend.rotates:
            query, key = rotate(query, rotary), rotate(key, rotary)
            rotary = None
        return self._backend.forward(
            query,
            key,
            value,
            layer=layer,
            scaling=scaling,
            plan=self._plan,
            window=window,
            rotary=rotary,
        )


def new_tokens(batch: PagedBatch) -> NewTokens:
    """The batch in that form.

    A table is as wide as the longest sequence needs; a shorter one ends with zeros.
    """
    tables, lengths = tables_and_lengths(batch)
    counts = torch.tensor([sequence.num_new for sequence in batch.sequences], dtype=torch.int32)
    return NewTokens(
        keys=batch.keys,
        values=batch.values,
        block_size=batch.block_size,
        tables=tables,
        lengths=lengths,
        counts=counts,
        num_new=batch.num_new,
    )


def tables_and_lengths(batch: PagedBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """[sequences, blocks of the longest], shorter ones end with zeros, and [sequences]: int32."""
    lengths = [sequence.kv_len for sequence in batch.sequences]
    width = -(-max(lengths) // batch.block_size)
    tables = [list(sequence.blocks[:width]) for sequence in batch.sequences]
    return (
        torch.tensor([table + [0] * (width - len(table)) for table in tables], dtype=torch.int32),
        torch.tensor(lengths, dtype=torch.int32),
    )


def leading_singles(batch: PagedBatch) -> int:
    """How many sequences at the front have one new token: decodes come first in a step."""
    for number, sequence in enumerate(batch.sequences):
        if sequence.num_new != 1:
            return number
    return len(batch.sequences)


def new_slots(batch: PagedBatch) -> torch.Tensor:
    """Where the new tokens' keys and values go, [T] int32 on the CPU."""
    size = batch.block_size
    found = []
    for sequence in batch.sequences:
        token = torch.arange(sequence.kv_len - sequence.num_new, sequence.kv_len)
        found.append(torch.tensor(sequence.blocks)[token // size] * size + token % size)
    return torch.cat(found).to(torch.int32)
