"""Runs one step on the model: a packed batch in, what its last rows say out.

All index tensors of a step are one host tensor, sent to the device once; the only wait for the
device is reading the sampled ids, and log-probabilities where they are asked for. That may happen
after the next step was launched: it takes the ids that the host has not seen from the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from epd.attention import AttentionBackend, PagedBatch, PagedSequence, row_writes
from epd.attention.row_writes import Deepstack
from epd.attention.staging import Staging, put
from epd.engine.chunk import Chunk
from epd.engine.decode_graphs import DecodeGraphs, DecodeRows
from epd.engine.kv.blocks import BlockPool
from epd.engine.kv.cache import KvCache
from epd.engine.language import LanguageModel
from epd.engine.launched import (
    ChunkRows,
    Launched,
    Outcome,
    PromptMeasured,
    rotary_positions,
    token_ids,
)
from epd.engine.logprobs import measure_prompt, read_prompt
from epd.engine.phases import Phases
from epd.engine.request import Choice
from epd.engine.sampler import Sampler

# Logits that exist at once for log-probabilities of a prompt: bounds their memory.
MAX_LOGITS = 1 << 24


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
        staging: Staging,
        phases: Phases,
        graphs: DecodeGraphs | None = None,
    ) -> None:
        self._model = model
        self._cache = cache
        self._pool = pool
        self._backend = backend
        self._sampler = sampler
        self._staging = staging
        self._phases = phases
        self._put_rows = row_writes.putter(model.device)
        self._graphs = graphs

    @torch.inference_mode()
    def launch(
        self,
        chunks: Sequence[tuple[Chunk, ChunkRows | None]],
        before: Launched | None = None,
    ) -> Launched:
        """Ask for one forward. `before` was not read yet: ids that are ahead come from there."""
        alone = [chunk for chunk, _ in chunks]
        if not any(chunk.choice is not None and chunk.choice.ahead for chunk in alone):
            before = None
        launched = Launched(alone, [choice for chunk in alone for choice in chunk.samples])
        logits = self._replayed(alone, before)
        if logits is not None:
            self._phases.ended("forward")
            self._sample(launched, None, logits)
        else:
            self._eager(launched, chunks, before)
        self._phases.ended("sample")
        return launched

    @torch.inference_mode()
    def read(self, launched: Launched) -> Outcome:
        """What the step gave, once. Waits for it."""
        outcome, names = Outcome(), [choice.name for choice in launched.choices]
        if launched.sampled is not None and launched.ids is not None:
            outcome.ids = launched.ids.read().tolist()
            if launched.told:
                self._sampler.chosen(names, outcome.ids)
            measured = launched.measured
            outcome.logprobs = launched.sampled.logprobs(
                None if measured is None else measured.read()
            )
        outcome.prompt_logprobs = [
            (each.chunk, each.first, read_prompt(each.values.read())) for each in launched.prompts
        ]
        self._phases.ended("sample")
        return outcome

    def _replayed(self, chunks: Sequence[Chunk], before: Launched | None) -> torch.Tensor | None:
        """Logits of a step of decodes that was recorded; None for any other."""
        if self._graphs is None or any(chunk.choice is None for chunk in chunks):
            return None
        sequences = [self._sequence(chunk) for chunk in chunks]
        size, block = self._graphs.size_for([s.blocks for s in sequences]), self._cache.block_size
        if size is None:
            return None
        rows = DecodeRows(
            token_ids=[token for chunk in chunks for token in token_ids(chunk)],
            positions=rotary_positions(chunks).tolist(),
            lengths=[sequence.kv_len for sequence in sequences],
            blocks=[s.blocks[: -(-s.kv_len // block)] for s in sequences],
            sources=_sources(chunks, before),
            ahead=None if before is None else partial(_with_ahead, before),
        )
        self._phases.ended("plan")
        return self._graphs.run(size, rows)

    def _eager(
        self,
        launched: Launched,
        chunks: Sequence[tuple[Chunk, ChunkRows | None]],
        before: Launched | None,
    ) -> None:
        plan = self._backend.bind(self._batch(launched.chunks))
        packed = self._pack(chunks, before)
        self._phases.ended("plan")
        embeds, deepstack = self._embeds(packed, [rows for _, rows in chunks if rows is not None])
        hidden = self._model.forward(embeds, packed.positions, plan, deepstack)
        likeliest = self._likeliest(hidden, packed, launched.choices)
        logits = self._logits(hidden, packed) if likeliest is None else None
        self._phases.ended("forward")
        self._sample(launched, likeliest, logits)
        launched.prompts += self._measure_prompts(hidden, launched.chunks)

    def _sequence(self, chunk: Chunk) -> PagedSequence:
        blocks = self._pool.table(chunk.state.key, chunk.table)
        assert blocks is not None, "scheduled without a reservation"
        return PagedSequence(chunk.num, chunk.first + chunk.num, blocks)

    def _batch(self, chunks: Sequence[Chunk]) -> PagedBatch:
        cache = self._cache
        sequences = tuple(self._sequence(chunk) for chunk in chunks)
        return PagedBatch(sequences, cache.keys, cache.values, cache.block_size)

    def _pack(
        self, chunks: Sequence[tuple[Chunk, ChunkRows | None]], before: Launched | None
    ) -> _Packed:
        ids: list[int] = []
        places: list[torch.Tensor] = []
        lasts: list[int] = []
        copies: list[int] = []
        for chunk, rows in chunks:
            if rows is not None:
                places.append(rows.places + len(ids))
            ids += token_ids(chunk)
            if chunk.samples:
                copies += [len(lasts)] * len(chunk.samples)
                lasts.append(len(ids) - 1)
        parts = [
            torch.tensor(ids),
            rotary_positions([chunk for chunk, _ in chunks]),
            torch.cat(places) if places else torch.tensor([], dtype=torch.int64),
            torch.tensor(lasts, dtype=torch.int64),
            torch.tensor(copies, dtype=torch.int64),
            torch.tensor(_sources([chunk for chunk, _ in chunks], before), dtype=torch.int64),
        ]
        sent, *others, sources = self._staging.send(parts)
        if before is not None:
            sent = _with_ahead(before, sent, sources)
        return _Packed(sent, *others)

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
        self, launched: Launched, likeliest: torch.Tensor | None, logits: torch.Tensor | None
    ) -> None:
        names = [choice.name for choice in launched.choices]
        if likeliest is not None:
            launched.sampled = self._sampler.take(likeliest, names)
        elif logits is not None:
            launched.sampled = self._sampler.sample(logits, names)
            launched.told = self._sampler.needs_ids
        else:
            return
        launched.ids = self._staging.fetch(launched.sampled.ids)
        if launched.sampled.measured is not None:
            launched.measured = self._staging.fetch(launched.sampled.measured)

    def _measure_prompts(
        self, hidden: torch.Tensor, chunks: Sequence[Chunk]
    ) -> Iterator[PromptMeasured]:
        """Each row of a chunk tells about the next prompt token."""
        at = 0
        for chunk in chunks:
            start, at = at, at + chunk.num
            state, first = chunk.state, chunk.first + 1
            top = state.request.sampling.prompt_logprobs
            num = min(chunk.num, state.num_prompt - first)
            if top is None or chunk.choice is not None or num < 1:
                continue
            found: list[torch.Tensor] = []
            most = max(1, MAX_LOGITS // self._model.vocab_size)
            next_ids = put(torch.tensor(state.prompt[first : first + num]), self._model.device)
            for part in range(0, num, most):
                size = min(most, num - part)
                logits = self._model.logits(hidden[start + part : start + part + size])
                found.append(measure_prompt(logits, next_ids[part : part + size], top))
            yield PromptMeasured(chunk, first, self._staging.fetch(torch.cat(found)))


def _sources(chunks: Sequence[Chunk], before: Launched | None) -> list[int]:
    """Of each decode, which row of the step before gives its token id; -1: the host knows it."""
    if before is None:
        return []
    rows = {choice.name: row for row, choice in enumerate(before.choices)}
    found = [chunk.choice for chunk in chunks if chunk.choice is not None]
    return [rows[choice.name] if choice.ahead else -1 for choice in found]


def _with_ahead(before: Launched, ids: torch.Tensor, sources: torch.Tensor) -> torch.Tensor:
    """`ids`, of which the first have `sources`, replaced where the device alone knows them.

    One that is BROKEN becomes 0: its request fails when it is read.
    """
    assert before.sampled is not None
    known = before.sampled.ids.index_select(0, sources.clamp(min=0)).clamp(min=0)
    heads = torch.where(sources < 0, ids[: len(sources)], known)
    return heads if len(heads) == len(ids) else torch.cat([heads, ids[len(sources) :]])
