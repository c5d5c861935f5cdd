"""Attention with our own Triton kernels: any CUDA device, and Triton's interpreter."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from epd.attention import kernels
from epd.attention.base import (
    AttentionBackend,
    PagedBatch,
    PagedSequence,
    Rotary,
    SingleTokens,
    leading_singles,
    new_slots,
    tables_and_lengths,
)
from epd.attention.kernels import dense
from epd.attention.kernels.decode import decode, num_splits
from epd.attention.kernels.prefill import prefill, tile_queries
from epd.attention.kernels.write import write
from epd.attention.staging import staging_for


@dataclass(frozen=True, slots=True)
class TritonPlan:
    """One step. The first of its sequences have one new token each, in as many first rows.

    `tables` [sequences, blocks] of all, `lengths` of those first ones, which `splits` says how to
    read. `slots` [T] of the new tokens; None where all sequences are of that kind, whose lengths
    tell. `tiles` of the others: at most `tile` queries each, see kernels.prefill; None without.
    """

    keys: torch.Tensor
    values: torch.Tensor
    block_size: int
    tables: torch.Tensor
    lengths: torch.Tensor
    splits: int
    slots: torch.Tensor | None = None
    tiles: torch.Tensor | None = None
    tile: int = 0


class TritonBackend(AttentionBackend[TritonPlan]):
    """Split-context decode and ragged prefill over pages; nothing is gathered."""

    name = "triton"
    capturable = True
    rotates = True

    def plan(self, batch: PagedBatch) -> TritonPlan:
        """Block tables, and which rows belong to whom; one copy to the device."""
        device = batch.keys.device
        tables, lengths = tables_and_lengths(batch)
        singles = leading_singles(batch)
        if singles == len(batch.sequences):
            tables, lengths = staging_for(device).send((tables, lengths))
            return self.decode_plan(
                SingleTokens(batch.keys, batch.values, batch.block_size, tables, lengths)
            )
        longest = max(sequence.num_new for sequence in batch.sequences)
        tile = tile_queries(longest, batch.keys.shape[-1], batch.keys.dtype)
        tiles = _tiles(batch.sequences, singles, tile)
        host = (tables, lengths[:singles], new_slots(batch), tiles)
        tables, lengths, slots, tiles = staging_for(device).send(host)
        splits = _splits(batch, tables[:singles])
        return TritonPlan(
            batch.keys, batch.values, batch.block_size, tables, lengths, splits, slots, tiles, tile
        )

    def decode_plan(self, tokens: SingleTokens) -> TritonPlan:
        """See AttentionBackend.decode_plan."""
        splits = _splits(tokens, tokens.tables)
        return TritonPlan(
            tokens.keys, tokens.values, tokens.block_size, tokens.tables, tokens.lengths, splits
        )

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        layer: int,
        scaling: float,
        plan: TritonPlan,
        window: int | None = None,
        rotary: Rotary | None = None,
    ) -> torch.Tensor:
        """See AttentionBackend.forward."""
        query = dense(query)
        keys, values, size = plan.keys[layer], plan.values[layer], plan.block_size
        write(
            query,
            dense(key),
            dense(value),
            keys,
            values,
            block_size=size,
            slots=plan.slots,
            tables=plan.tables,
            lengths=plan.lengths,
            rotary=rotary,
        )
        out = query.new_empty(query.shape[1], query.shape[0], query.shape[2])
        if len(plan.lengths):
            decode(
                query,
                keys,
                values,
                out,
                tables=plan.tables,
                lengths=plan.lengths,
                block_size=size,
                scaling=scaling,
                window=window,
                splits=plan.splits,
            )
        if plan.tiles is not None:
            prefill(
                query,
                keys,
                values,
                out,
                tables=plan.tables,
                tiles=plan.tiles,
                tile=plan.tile,
                block_size=size,
                scaling=scaling,
                window=window,
            )
        return out


def _splits(batch: PagedBatch | SingleTokens, tables: torch.Tensor) -> int:
    return num_splits(
        sequences=max(1, len(tables)),
        kv_heads=batch.keys.shape[2],
        most_tokens=tables.shape[1] * batch.block_size,
        processors=kernels.processors(batch.keys.device),
    )


def _tiles(sequences: tuple[PagedSequence, ...], singles: int, tile: int) -> torch.Tensor:
    """Those of sequence number `singles` and all behind it, [n, 4] int32."""
    tiles = []
    at = singles
    for number, sequence in list(enumerate(sequences))[singles:]:
        before = sequence.kv_len - sequence.num_new
        for first in range(0, sequence.num_new, tile):
            num = min(tile, sequence.num_new - first)
            tiles.append((number, at + first, before + first, num))
        at += sequence.num_new
    # The longest contexts first: what is left for the end is short.
    tiles.sort(key=lambda found: -found[2])
    return torch.tensor(tiles, dtype=torch.int32)
