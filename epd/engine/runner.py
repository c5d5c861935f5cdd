"""Runs one step on the model: a packed batch in, what its last rows say out.

All index tensors of a step are one host tensor, sent to the device once; the only wait for the
device is reading the sampled ids, and log-probabilities where they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from epd.attention import AttentionBackend, PagedBatch, PagedSequence, row_writes
from epd.attention.row_writes import Deepstack
from epd.engine.chunk import Chunk
from epd.engine.kv.blocks import BlockPool
from epd.engine.kv.cache import KvCache
from epd.engine.language import LanguageModel
from epd.engine.logprobs import prompt_logprobs
from epd.engine.phases import Phases
from epd.engine.request import Choice
from epd.engine.sampler import Sampler
from epd.engine.tables import put
from epd.types import RequestKey, TokenLogprobs

# Logits that exist at once for log-probabilities of a prompt: bounds their memory.
MAX_LOGITS = 1 << 24


@dataclass(frozen=True, slots=True)
class ChunkRows:
    """Embedding rows of a chunk: their places relative to its first token, and [k, hidden]."""

    places: torch.Tensor
    rows: torch.Tensor


@dataclass(slots=True)
class Outcome:
    """Of every choice that samples, in the order of the chunks: its id (see sampler.BROKEN), and
    its log-probabilities where any are asked for; of prompts, as in StepResult."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs | None] = field(default_factory=list)
    prompt_logprobs: list[tuple[RequestKey, int, tuple[TokenLogprobs, ...]]] = field(
        default_factory=list
    )


@dataclass(slots=True)
class _Packed:
    """Index tensors of a step on the device."""

    ids: torch.Tensor
    positions: torch.Tensor
    places: torch.Tensor
    lasts: torch.Tensor
    copies: torch.Tensor


class Runner:
    """Joins model, pages, attention backend and sampler."""

    def __init__(
        self,
        model: LanguageModel,
        cache: KvCache,
        pool: BlockPool,
        backend: AttentionBackend[Any],
        sampler: Sampler,
        phases: Phases,
    ) -> None:
        self._model = model
        self._cache = cache
        self._pool = pool
        self._backend = backend
        self._sampler = sampler
        self._phases = phases
        self._put_rows = row_writes.putter(model.device)

    @torch.inference_mode()
    def execute(self, chunks: Sequence[tuple[Chunk, ChunkRows | None]]) -> Outcome:
        """One forward."""
        plan = self._backend.bind(self._batch(chunks))
        packed = self._pack(chunks)
        self._phases.ended("plan")
        embeds, deepstack = self._embeds(packed, [rows for _, rows in chunks if rows is not None])
        hidden = self._model.forward(embeds, packed.positions, plan, deepstack)
        choices = [choice for chunk, _ in chunks for choice in chunk.samples]
        likeliest = self._likeliest(hidden, packed, choices)
        logits = self._logits(hidden, packed) if likeliest is None else None
        self._phases.ended("forward")
        outcome = self._sample(likeliest, logits, choices)
        outcome.prompt_logprobs += self._prompt_logprobs(hidden, [chunk for chunk, _ in chunks])
        self._phases.ended("sample")
        return outcome

    def _batch(self, chunks: Sequence[tuple[Chunk, ChunkRows | None]]) -> PagedBatch:
        sequences = []
        for chunk, _ in chunks:
            blocks = self._pool.table(chunk.state.key, chunk.table)
            assert blocks is not None, "scheduled without a reservation"
            sequences.append(PagedSequence(chunk.num, chunk.first + chunk.num, blocks))
        return PagedBatch(
            tuple(sequences), self._cache.keys, self._cache.values, self._cache.block_size
        )

    def _pack(self, chunks: Sequence[tuple[Chunk, ChunkRows | None]]) -> _Packed:
        ids: list[int] = []
        places: list[torch.Tensor] = []
        lasts: list[int] = []
        copies: list[int] = []
        for chunk, rows in chunks:
            if rows is not None:
                places.append(rows.places + len(ids))
            ids += chunk.token_ids
            if chunk.samples:
                copies += [len(lasts)] * len(chunk.samples)
                lasts.append(len(ids) - 1)
        positions = _positions([chunk for chunk, _ in chunks])
        parts = [
            torch.tensor(ids),
            positions.flatten().view(torch.int64),  # its bits: all travel as one tensor
            torch.cat(places) if places else torch.tensor([], dtype=torch.int64),
            torch.tensor(lasts, dtype=torch.int64),
            torch.tensor(copies, dtype=torch.int64),
        ]
        sent = torch.split(put(torch.cat(parts), self._model.device), [len(part) for part in parts])
        return _Packed(sent[0], sent[1].view(torch.float64).view(positions.shape), *sent[2:])

    def _embeds(
        self, packed: _Packed, rows: Sequence[ChunkRows]
    ) -> tuple[torch.Tensor, Deepstack | None]:
        """Embedded ids, overwritten where a layout says that a row goes.

        With the places and the deeper slices of those rows, [k, hidden] per level, if any.
        """
        embeds = self._model.embed(packed.ids)
        if not rows:
            return embeds, None
        found = torch.cat([each.rows for each in rows])
        if found.device != embeds.device:
            found = put(found, embeds.device)
        first, *deeper = found.chunk(1 + self._model.deepstack_levels, dim=1)
        self._put_rows(embeds, packed.places, first)
        return embeds, (packed.places, deeper) if deeper else None

    def _likeliest(
        self, hidden: torch.Tensor, packed: _Packed, choices: Sequence[Choice]
    ) -> torch.Tensor | None:
        """Ids of choices that need no more of their logits, if the model has a faster way."""
        if not choices or len(packed.copies) > len(packed.lasts):
            return None
        if not self._sampler.plain(choice.name for choice in choices):
            return None
        return self._model.likeliest(hidden.index_select(0, packed.lasts))

    def _logits(self, hidden: torch.Tensor, packed: _Packed) -> torch.Tensor | None:
        """One row per choice that samples; the head runs once for all choices of a prompt."""
        if not len(packed.lasts):
            return None
        logits = self._model.logits(hidden.index_select(0, packed.lasts))
        if len(packed.copies) == len(packed.lasts):
            return logits
        return logits.index_select(0, packed.copies)

    def _sample(
        self,
        likeliest: torch.Tensor | None,
        logits: torch.Tensor | None,
        choices: Sequence[Choice],
    ) -> Outcome:
        names = [choice.name for choice in choices]
        if likeliest is not None:
            sampled = self._sampler.take(likeliest, names)
        elif logits is not None:
            sampled = self._sampler.sample(logits, names)
        else:
            return Outcome()
        ids: list[int] = sampled.ids.tolist()
        if likeliest is None:
            self._sampler.chosen(names, ids)
        return Outcome(ids, sampled.logprobs())

    def _prompt_logprobs(
        self, hidden: torch.Tensor, chunks: Sequence[Chunk]
    ) -> Iterator[tuple[RequestKey, int, tuple[TokenLogprobs, ...]]]:
        """Each row of a chunk tells about the next prompt token."""
        at = 0
        for chunk in chunks:
            start, at = at, at + chunk.num
            state, first = chunk.state, chunk.first + 1
            top = state.request.sampling.prompt_logprobs
            num = min(chunk.num, state.num_prompt - first)
            if top is None or chunk.choice is not None or num < 1:
                continue
            found: list[TokenLogprobs] = []
            most = max(1, MAX_LOGITS // self._model.vocab_size)
            next_ids = put(torch.tensor(state.prompt[first : first + num]), self._model.device)
            for part in range(0, num, most):
                size = min(most, num - part)
                logits = self._model.logits(hidden[start + part : start + part + size])
                found += prompt_logprobs(logits, next_ids[part : part + size], top)
            yield state.key, first, tuple(found)


def _positions(chunks: Sequence[Chunk]) -> torch.Tensor:
    """Rotary positions of the packed tokens: [3, T] where any request has three rows, else [T].

    Decodes come first in a step: their positions are one tensor.
    """
    single = [c.first + c.state.request.position_delta for c in chunks if c.choice is not None]
    parts = [torch.tensor(single, dtype=torch.float64)] if single else []
    for chunk in chunks[len(single) :]:
        parts.append(chunk.state.request.positions[..., chunk.first : chunk.first + chunk.num])
    if any(part.ndim == 2 for part in parts):
        parts = [part.expand(3, -1) for part in parts]
    return torch.cat(parts, -1).to(torch.float64)
