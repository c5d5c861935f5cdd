"""Runs one step on the model: a packed batch in, one sampled id per finishing chunk out.

Tensors are built once per step; the only wait for the device is reading the sampled ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from epd.attention import AttentionBackend, PagedBatch, PagedSequence
from epd.engine.kv.blocks import BlockPool
from epd.engine.kv.cache import KvCache
from epd.engine.language import LanguageModel
from epd.engine.sampler import Sampler
from epd.engine.scheduler import Chunk


@dataclass(frozen=True, slots=True)
class ChunkRows:
    """Embedding rows of a chunk: their places relative to its first token, and [k, hidden]."""

    places: torch.Tensor
    rows: torch.Tensor


class Runner:
    """Joins model, pages, attention backend and sampler."""

    def __init__(
        self,
        model: LanguageModel,
        cache: KvCache,
        pool: BlockPool,
        backend: AttentionBackend[Any],
        sampler: Sampler,
    ) -> None:
        self._model = model
        self._cache = cache
        self._pool = pool
        self._backend = backend
        self._sampler = sampler

    @torch.inference_mode()
    def execute(self, chunks: Sequence[tuple[Chunk, ChunkRows | None]]) -> list[int]:
        """One forward; ids in the order of the chunks that sample (see sampler.BROKEN)."""
        device = self._model.device
        plan = self._backend.bind(self._batch([chunk for chunk, _ in chunks]))
        embeds, deepstack = self._embeds(chunks)
        positions = _positions([chunk for chunk, _ in chunks]).to(device)
        hidden = self._model.forward(embeds, positions, plan, deepstack)
        last, names = [], []
        at = 0
        for chunk, _ in chunks:
            at += chunk.num
            if chunk.samples:
                last.append(at - 1)
                names.append(chunk.state.key)
        if not names:
            return []
        logits = self._model.logits(hidden[torch.tensor(last).to(device)])
        ids: list[int] = self._sampler.sample(logits, names).ids.tolist()
        return ids

    def _batch(self, chunks: Sequence[Chunk]) -> PagedBatch:
        sequences = []
        for chunk in chunks:
            blocks = self._pool.table(chunk.state.key)
            assert blocks is not None, "scheduled without a reservation"
            sequences.append(PagedSequence(chunk.num, chunk.first + chunk.num, blocks))
        return PagedBatch(
            tuple(sequences), self._cache.keys, self._cache.values, self._cache.block_size
        )

    def _embeds(
        self, chunks: Sequence[tuple[Chunk, ChunkRows | None]]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor] | None]:
        """Embedded ids, overwritten where a layout says that a row goes.

        With the places and the deeper slices of those rows, [levels, k, hidden], if there are any.
        """
        device = self._model.device
        ids: list[int] = []
        places: list[torch.Tensor] = []
        rows: list[torch.Tensor] = []
        for chunk, taken in chunks:
            if taken is not None:
                places.append(taken.places + len(ids))
                rows.append(taken.rows)
            ids += chunk.state.token_ids[chunk.first : chunk.first + chunk.num]
        embeds = self._model.embed(torch.tensor(ids).to(device))
        if not rows:
            return embeds, None
        at, found = torch.cat(places).to(device), torch.cat(rows).to(device)
        levels = self._model.deepstack_levels
        first, *deeper = found.chunk(1 + levels, dim=1)
        embeds = embeds.index_copy(0, at, first)
        return embeds, (at, torch.stack(deeper)) if deeper else None


def _positions(chunks: Sequence[Chunk]) -> torch.Tensor:
    """Rotary positions of the packed tokens: [3, T] where any request has three rows, else [T]."""
    parts = []
    for chunk in chunks:
        request = chunk.state.request
        if chunk.first < chunk.state.num_prompt:
            parts.append(request.positions[..., chunk.first : chunk.first + chunk.num])
        else:
            parts.append(torch.tensor([chunk.first + request.position_delta]))
    if any(part.ndim == 2 for part in parts):
        parts = [part.expand(3, -1) for part in parts]
    return torch.cat(parts, -1)
