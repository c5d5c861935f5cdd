"""Attention with torch's scaled_dot_product_attention: any device, the reference of all others.

Single new tokens (decode) go together, one call for sequences of similar length; a chunk of
several new tokens (prefill) is a call of its own.

A masked slot still takes part in the arithmetic (0 * NaN is NaN), so padding never points to a
slot that this sequence has not written: broken values of one request cannot reach another.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from epd.attention.base import AttentionBackend, PagedBatch, PagedSequence

# Padded tokens that one decode call may gather: bounds its temporary memory.
MAX_GATHERED = 1 << 16


@dataclass(frozen=True, slots=True)
class DecodeGroup:
    """Sequences with one new token each: B of them, padded to L slots."""

    rows_B: torch.Tensor
    slots_BL: torch.Tensor
    mask_B11L: torch.Tensor


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """Packed rows [start, end) of one sequence. `slots` is None where nothing came before."""

    start: int
    end: int
    slots: torch.Tensor | None
    mask: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class SdpaPlan:
    """One step: the slot that every new token is written to, and who attends to which."""

    keys: torch.Tensor
    values: torch.Tensor
    new_slots: torch.Tensor
    decodes: tuple[DecodeGroup, ...]
    chunks: tuple[PrefillChunk, ...]


class SdpaBackend(AttentionBackend[SdpaPlan]):
    """The reference backend."""

    def plan(self, batch: PagedBatch) -> SdpaPlan:
        """Block tables become slot numbers, once for all layers."""
        device = batch.keys.device
        single: dict[int, list[tuple[int, PagedSequence]]] = defaultdict(list)
        chunks = []
        new_slots = []
        row = 0
        for sequence in batch.sequences:
            new_slots += _new_slots(sequence, batch.block_size)
            if sequence.num_new == 1:
                single[sequence.kv_len.bit_length()].append((row, sequence))
            else:
                chunks.append(_prefill_chunk(sequence, row, batch.block_size, device))
            row += sequence.num_new
        return SdpaPlan(
            keys=batch.keys,
            values=batch.values,
            new_slots=torch.tensor(new_slots, dtype=torch.int64).to(device),
            decodes=tuple(
                _decode_group(part, batch.block_size, device)
                for rows in single.values()
                for part in _bounded(rows)
            ),
            chunks=tuple(chunks),
        )

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        layer: int,
        scaling: float,
        plan: SdpaPlan,
    ) -> torch.Tensor:
        """See AttentionBackend.forward."""
        keys, values = plan.keys[layer], plan.values[layer]
        keys.index_copy_(0, plan.new_slots, key.transpose(0, 1))
        values.index_copy_(0, plan.new_slots, value.transpose(0, 1))
        out = query.new_empty(query.shape[1], query.shape[0], query.shape[2])
        for group in plan.decodes:
            picked = query[:, group.rows_B].transpose(0, 1)
            out[group.rows_B] = _decode(picked, keys, values, group, scaling)
        for chunk in plan.chunks:
            rows = slice(chunk.start, chunk.end)
            k, v = key[:, rows], value[:, rows]
            if chunk.slots is not None:
                k = _gather(keys, chunk.slots).transpose(0, 1)
                v = _gather(values, chunk.slots).transpose(0, 1)
            out[rows] = _prefill(query[:, rows], k, v, chunk.mask, scaling)
        return out


def _decode(
    query_BHD: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    group: DecodeGroup,
    scaling: float,
) -> torch.Tensor:
    """The query heads of one KV head are rows of one small matrix: nothing is expanded."""
    num, heads, dim = query_BHD.shape
    kv_heads = keys.shape[1]
    out = F.scaled_dot_product_attention(
        query_BHD.view(num, kv_heads, heads // kv_heads, dim),
        _gather(keys, group.slots_BL).transpose(1, 2),
        _gather(values, group.slots_BL).transpose(1, 2),
        attn_mask=group.mask_B11L,
        scale=scaling,
    )
    return out.reshape(num, heads, dim)


def _prefill(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
) -> torch.Tensor:
    """[heads, T, dim] and [kv_heads, L, dim] -> [T, heads, dim]."""
    out = F.scaled_dot_product_attention(
        query[None],
        key[None],
        value[None],
        attn_mask=mask,
        is_causal=mask is None,
        scale=scaling,
        enable_gqa=True,
    )
    return out[0].transpose(0, 1)


def _gather(pages: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """Slots [...] of [slots, heads, dim] -> [..., heads, dim]; far faster than pages[slots]."""
    return pages.index_select(0, slots.flatten()).view(*slots.shape, *pages.shape[1:])


def _new_slots(sequence: PagedSequence, block_size: int) -> list[int]:
    first = sequence.kv_len - sequence.num_new
    return [
        sequence.blocks[token // block_size] * block_size + token % block_size
        for token in range(first, sequence.kv_len)
    ]


def _prefill_chunk(
    sequence: PagedSequence, row: int, block_size: int, device: torch.device
) -> PrefillChunk:
    num, kv_len = sequence.num_new, sequence.kv_len
    if num == kv_len:
        return PrefillChunk(row, row + num, None, None)
    slots = _slots(torch.tensor(sequence.blocks), block_size)[:kv_len].to(device)
    mask = torch.ones(num, kv_len, dtype=torch.bool, device=device).tril(kv_len - num)
    return PrefillChunk(row, row + num, slots, mask)


def _decode_group(
    rows: Sequence[tuple[int, PagedSequence]], block_size: int, device: torch.device
) -> DecodeGroup:
    longest = max(sequence.kv_len for _, sequence in rows)
    num_blocks = -(-longest // block_size)
    tables = []
    for _, sequence in rows:
        own = list(sequence.blocks[:num_blocks])
        tables.append(own + [own[0]] * (num_blocks - len(own)))
    slots = _slots(torch.tensor(tables), block_size)[:, :longest].to(device)
    kv_lens = torch.tensor([sequence.kv_len for _, sequence in rows]).to(device)
    mask = torch.arange(longest, device=device) < kv_lens[:, None]
    return DecodeGroup(
        rows_B=torch.tensor([row for row, _ in rows]).to(device),
        slots_BL=torch.where(mask, slots, slots[:, :1]),
        mask_B11L=mask[:, None, None],
    )


def _bounded(
    rows: list[tuple[int, PagedSequence]],
) -> list[list[tuple[int, PagedSequence]]]:
    """Split sequences of similar length so that one gather stays under MAX_GATHERED tokens."""
    longest = max(sequence.kv_len for _, sequence in rows)
    most = max(1, MAX_GATHERED // longest)
    return [rows[at : at + most] for at in range(0, len(rows), most)]


def _slots(tables: torch.Tensor, block_size: int) -> torch.Tensor:
    """Block numbers [..., n] -> slot numbers [..., n * block_size]."""
    return (tables[..., None] * block_size + torch.arange(block_size)).flatten(-2)
