"""Attention with our own Triton kernels: any CUDA device, and Triton's interpreter."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

from epd.attention.base import (
    AttentionBackend,
    PagedBatch,
    PagedSequence,
    Rotary,
    SingleTokens,
    tables_and_lengths,
)
from epd.attention.kernels.decode import decode, num_splits
from epd.attention.kernels.prefill import prefill, tile_queries
from epd.attention.kernels.write import write
from epd.attention.staging import send


@dataclass(frozen=True, slots=True)
class DecodePart:
    """Sequences with one new token each: `tables` [B, blocks], `lengths` and `rows` [B].

    `rows` None: sequence b stands in row b of the packed batch.
    """

    tables: torch.Tensor
    lengths: torch.Tensor
    rows: torch.Tensor | None
    splits: int


@dataclass(frozen=True, slots=True)
class PrefillPart:
    """Tiles of at most `tile` queries of longer chunks, see kernels.prefill; tables of all."""

    tables: torch.Tensor
    tiles: torch.Tensor
    tile: int


@dataclass(frozen=True, slots=True)
class TritonPlan:
    """One step. `slots` [T] of the new tokens; None where each follows from `decode`'s lengths."""

    keys: torch.Tensor
    values: torch.Tensor
    block_size: int
    slots: torch.Tensor | None
    decode: DecodePart | None
    prefill: PrefillPart | None


class TritonBackend(AttentionBackend[TritonPlan]):
    """Split-context decode and ragged prefill over pages; nothing is gathered."""

    name = "triton"
    capturable = True
    rotates = True

    def plan(self, batch: PagedBatch) -> TritonPlan:
        """Block tables, and which rows belong to whom; one copy to the device."""
        device = batch.keys.device
        tables, lengths = tables_and_lengths(batch)
        if all(sequence.num_new == 1 for sequence in batch.sequences):
            tables, lengths = send((tables, lengths), device)
            return self.decode_plan(
                SingleTokens(batch.keys, batch.values, batch.block_size, tables, lengths)
            )
        longest = max(sequence.num_new for sequence in batch.sequences)
        tile = tile_queries(longest, batch.keys.shape[-1], batch.keys.dtype)
        single = [n for n, sequence in enumerate(batch.sequences) if sequence.num_new == 1]
        rows, tiles = _rows_and_tiles(batch.sequences, tile)
        host = (tables, lengths[single], tables[single], rows[single], tiles, _slots(batch))
        tables, lengths, own, rows, tiles, slots = send(host, device)
        return TritonPlan(
            keys=batch.keys,
            values=batch.values,
            block_size=batch.block_size,
            slots=slots,
            decode=self._decode_part(batch, own, lengths, rows) if single else None,
            prefill=PrefillPart(tables, tiles, tile),
        )

    def decode_plan(self, tokens: SingleTokens) -> TritonPlan:
        """See AttentionBackend.decode_plan."""
        return TritonPlan(
            keys=tokens.keys,
            values=tokens.values,
            block_size=tokens.block_size,
            slots=None,
            decode=self._decode_part(tokens, tokens.tables, tokens.lengths, None),
            prefill=None,
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
        query, key, value = dense(query), dense(key), dense(value)
        keys, values = plan.keys[layer], plan.values[layer]
        either = plan.decode or plan.prefill
        assert either is not None
        write(
            query,
            key,
            value,
            keys,
            values,
            block_size=plan.block_size,
            slots=plan.slots,
            tables=either.tables,
            lengths=either.tables if plan.decode is None else plan.decode.lengths,
            rotary=rotary,
        )
        out = query.new_empty(query.shape[1], query.shape[0], query.shape[2])
        shared = {"block_size": plan.block_size, "scaling": scaling, "window": window}
        if (part := plan.decode) is not None:
            decode(
                query,
                keys,
                values,
                out,
                tables=part.tables,
                lengths=part.lengths,
                rows=part.rows,
                splits=part.splits,
                **shared,
            )
        if (chunks := plan.prefill) is not None:
            prefill(
                query,
                keys,
                values,
                out,
                tables=chunks.tables,
                tiles=chunks.tiles,
                tile=chunks.tile,
                **shared,
            )
        return out

    def _decode_part(
        self,
        batch: PagedBatch | SingleTokens,
        tables: torch.Tensor,
        lengths: torch.Tensor,
        rows: torch.Tensor | None,
    ) -> DecodePart:
        splits = num_splits(
            sequences=len(lengths),
            kv_heads=batch.keys.shape[2],
            most_tokens=tables.shape[1] * batch.block_size,
            processors=_processors(batch.keys.device),
        )
        return DecodePart(tables, lengths, rows, splits)


def dense(vectors: torch.Tensor) -> torch.Tensor:
    """The same with its last dimension contiguous, as kernels read vectors."""
    return vectors if vectors.stride(-1) == 1 else vectors.contiguous()


def _rows_and_tiles(
    sequences: tuple[PagedSequence, ...], tile: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """First packed row of each sequence, and the tiles of those with more than one new token."""
    rows, tiles = [], []
    at = 0
    for number, sequence in enumerate(sequences):
        rows.append(at)
        before = sequence.kv_len - sequence.num_new
        for first in range(0, sequence.num_new if sequence.num_new > 1 else 0, tile):
            num = min(tile, sequence.num_new - first)
            tiles.append((number, at + first, before + first, num))
        at += sequence.num_new
    # The longest contexts first: what is left for the end is short.
    tiles.sort(key=lambda found: -found[2])
    return torch.tensor(rows, dtype=torch.int32), torch.tensor(tiles, dtype=torch.int32)


def _slots(batch: PagedBatch) -> torch.Tensor:
    """Where the new tokens' keys and values go, [T] int32."""
    size = batch.block_size
    found = []
    for sequence in batch.sequences:
        token = torch.arange(sequence.kv_len - sequence.num_new, sequence.kv_len)
        blocks = torch.tensor(sequence.blocks)
        found.append(blocks[token // size] * size + token % size)
    return torch.cat(found).to(torch.int32)


@cache
def _processors(device: torch.device) -> int:
    """Multiprocessors of the card; a few in the interpreter."""
    if device.type != "cuda":
        return 2
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
