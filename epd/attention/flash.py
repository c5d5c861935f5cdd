"""Attention with flash-attn 2 or 3, which are installed apart: see the optional extra `cuda`.

Version 2 is the package flash_attn, version 3 (Hopper alone) the module flash_attn_interface. Both
read pages through block tables; version 2 wants pages of a multiple of 256 tokens. Signatures and
limits are those of the public repository Dao-AILab/flash-attention.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

import torch

from epd.attention.base import (
    AttentionBackend,
    PagedBatch,
    Rotary,
    SingleTokens,
    leading_singles,
    new_slots,
    tables_and_lengths,
)
from epd.attention.kernels import dense
from epd.attention.kernels.write import write
from epd.attention.staging import staging_for

PAGE_TOKENS = 256
"""Version 2 takes multiples of it as a page."""

MODULES = {2: "flash_attn", 3: "flash_attn_interface"}


@dataclass(frozen=True, slots=True)
class Chunks:
    """Sequences behind the first `lengths` ones of a plan: packed rows from `row` on.

    `tables` [n, blocks]; `starts_q` and `starts_k` [n + 1], where each begins among all rows and
    all tokens; `lengths` [n] of their contexts; int32. The longest ones are known on the host.
    """

    row: int
    tables: torch.Tensor
    lengths: torch.Tensor
    starts_q: torch.Tensor
    starts_k: torch.Tensor
    longest_q: int
    longest_k: int


@dataclass(frozen=True, slots=True)
class FlashPlan:
    """One step. The first sequences have one new token each: `tables` [B, blocks], `lengths` [B].

    `slots` [T] of all new tokens; None where all sequences are such.
    """

    keys: torch.Tensor
    values: torch.Tensor
    block_size: int
    tables: torch.Tensor
    lengths: torch.Tensor
    slots: torch.Tensor | None = None
    chunks: Chunks | None = None


class FlashBackend(AttentionBackend[FlashPlan]):
    """flash_attn_with_kvcache for single new tokens, the ragged form for longer chunks."""

    name = "flash"
    capturable = True
    rotates = True

    def __init__(self, version: int) -> None:
        module = import_module(MODULES[version])
        self._with_cache: Callable[..., torch.Tensor] = module.flash_attn_with_kvcache
        self._ragged: Callable[..., torch.Tensor] = module.flash_attn_varlen_func
        self._version = version

    def plan(self, batch: PagedBatch) -> FlashPlan:
        """Block tables and where sequences begin; one copy to the device."""
        device, size = batch.keys.device, batch.block_size
        tables, lengths = tables_and_lengths(batch)
        singles = leading_singles(batch)
        if singles == len(batch.sequences):
            tables, lengths = staging_for(device).send((tables, lengths))
            return FlashPlan(batch.keys, batch.values, size, tables, lengths)
        rest = batch.sequences[singles:]
        host = (
            tables,
            lengths,
            new_slots(batch),
            _starts([sequence.num_new for sequence in rest]),
            _starts([sequence.kv_len for sequence in rest]),
        )
        tables, lengths, slots, starts_q, starts_k = staging_for(device).send(host)
        chunks = Chunks(
            row=singles,
            tables=tables[singles:],
            lengths=lengths[singles:],
            starts_q=starts_q,
            starts_k=starts_k,
            longest_q=max(sequence.num_new for sequence in rest),
            longest_k=max(sequence.kv_len for sequence in rest),
        )
        own = tables[:singles], lengths[:singles]
        return FlashPlan(batch.keys, batch.values, size, *own, slots, chunks)

    def decode_plan(self, tokens: SingleTokens) -> FlashPlan:
        """See AttentionBackend.decode_plan."""
        return FlashPlan(
            tokens.keys, tokens.values, tokens.block_size, tokens.tables, tokens.lengths
        )

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        layer: int,
        scaling: float,
        plan: FlashPlan,
        window: int | None = None,
        rotary: Rotary | None = None,
    ) -> torch.Tensor:
        """See AttentionBackend.forward."""
        query = dense(query)
        size, dim = plan.block_size, query.shape[-1]
        keys, values = plan.keys[layer], plan.values[layer]
        tables = plan.tables if plan.chunks is None else plan.chunks.tables
        write(
            query,
            dense(key),
            dense(value),
            keys,
            values,
            block_size=size,
            slots=plan.slots,
            tables=tables,
            lengths=plan.lengths,
            rotary=rotary,
        )
        rows = query.transpose(0, 1)
        pages = keys.view(-1, size, *keys.shape[1:]), values.view(-1, size, *values.shape[1:])
        shared = {
            "softmax_scale": scaling,
            "causal": True,
            "window_size": (-1, -1) if window is None else (window - 1, 0),
        }
        outs = []
        if single := len(plan.lengths):
            outs.append(self._singles(rows[:single], pages, plan, shared).view(single, -1, dim))
        if plan.chunks is not None:
            outs.append(self._chunks(rows[plan.chunks.row :], pages, plan.chunks, shared))
        return outs[0] if len(outs) == 1 else torch.cat(outs)

    def _singles(
        self,
        rows: torch.Tensor,
        pages: tuple[torch.Tensor, torch.Tensor],
        plan: FlashPlan,
        shared: dict[str, object],
    ) -> torch.Tensor:
        """[B, heads, dim] -> [B, 1, heads, dim]."""
        table = {"block_table" if self._version == 2 else "page_table": plan.tables}
        return self._with_cache(
            rows[:, None].contiguous(), *pages, cache_seqlens=plan.lengths, **table, **shared
        )

    def _chunks(
        self,
        rows: torch.Tensor,
        pages: tuple[torch.Tensor, torch.Tensor],
        chunks: Chunks,
        shared: dict[str, object],
    ) -> torch.Tensor:
        """[T, heads, dim] -> [T, heads, dim]. Version 3 takes pages in the other function only."""
        rows = rows.contiguous()
        if self._version == 3:
            return self._with_cache(
                rows,
                *pages,
                cache_seqlens=chunks.lengths,
                page_table=chunks.tables,
                cu_seqlens_q=chunks.starts_q,
                max_seqlen_q=chunks.longest_q,
                **shared,
            )
        return self._ragged(
            rows,
            *pages,
            chunks.starts_q,
            chunks.starts_k,
            chunks.longest_q,
            chunks.longest_k,
            block_table=chunks.tables,
            **shared,
        )


def installed(version: int) -> bool:
    """Is this version of flash-attn there?"""
    return find_spec(MODULES[version]) is not None


def _starts(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
