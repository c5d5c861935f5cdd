"""Ids chosen by kernels in one pass over the logits, see epd.attention.kernels.sample.

What changes a request's scores lies in one row of a few tables: bits that say of which ids, how
often they came, their bias. The kernels count what they choose, so nothing has to be told between
steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import torch

from epd.attention.staging import put
from epd.engine.adjustments import LAST_SCORE
from epd.engine.draw import Draws
from epd.engine.guided import Guided
from epd.engine.tables import Seats, fit
from epd.errors import EpdError
from epd.grammar import Grammars
from epd.types import SamplingParams

_WORD: Final = 32  # bits in a word


class OnePass:
    """See epd.engine.choosing.Choosing."""

    def __init__(self, vocab_size: int, device: torch.device, grammars: Grammars) -> None:
        self._vocab_size, self._device = vocab_size, device
        self._words = -(-vocab_size // _WORD)
        self._draws = Draws(device)
        self._guided = Guided(vocab_size, device, grammars)
        self._seats = Seats()
        # On the host, by slot: 1 + its row of the tables below (0: none), where a stop may come.
        self._host = torch.zeros(0, 2, dtype=torch.int64)
        words = torch.zeros(0, self._words, dtype=torch.int32, device=device)
        self._marks, self._stops = words, words.clone()
        self._counts = torch.zeros(0, vocab_size, dtype=torch.int32, device=device)
        self._bias = torch.zeros(0, vocab_size, device=device)
        self._penalties = torch.zeros(0, 4, device=device)

    def add(
        self,
        slot: int,
        sampling: SamplingParams,
        choice: int,
        prompt: Sequence[int],
        generated: Sequence[int],
    ) -> bool:
        """See Choosing."""
        self._draws.add(slot, sampling, choice)
        self._guided.add(slot, sampling, prompt, generated)
        self._host = fit(self._host, slot + 1, 2)
        self._host[slot] = torch.tensor([0, sampling.min_tokens])
        noted = _is_noted(sampling)
        if noted:
            row = self._seats.take()
            self._host[slot, 0] = 1 + row
            self._note(row, sampling, prompt, generated)
        return not noted and not self._guided.wanted(sampling)

    def forget(self, slot: int) -> None:
        """See Choosing."""
        self._guided.forget(slot)
        row = int(self._host[slot, 0]) - 1
        if row >= 0:
            self._seats.give_back(row)
            self._host[slot, 0] = 0

    def choose(
        self, logits: torch.Tensor, slots: torch.Tensor, index: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See Choosing. Nothing waits for the device."""
        from epd.attention.kernels.sample import Notes, sample

        rows, first = (self._host[slots] - torch.tensor([1, 0])).unbind(-1)
        guided = self._guided.concerned(slots, index)
        masks = torch.full_like(slots, -1)
        masks[guided] = torch.arange(len(guided))
        early = ((index < first) & (rows >= 0)).long()
        told = torch.stack([slots, index, rows, early, masks], 1)
        return sample(
            logits,
            put(told, self._device),
            Notes(self._marks, self._stops, self._counts, self._bias, self._penalties),
            put(self._allowed(slots[guided]), self._device),
            *self._draws.tables,
            draws=self._draws.any(slots),
        )

    def chosen(self, slots: torch.Tensor, ids: Sequence[int]) -> None:
        """See Choosing."""
        self._guided.chosen(slots, ids)

    @property
    def needs_ids(self) -> bool:
        """See Choosing."""
        return self._guided.any

    def fault(self, slot: int) -> EpdError | None:
        """See Choosing."""
        return self._guided.fault(slot)

    def _note(
        self, row: int, sampling: SamplingParams, prompt: Sequence[int], generated: Sequence[int]
    ) -> None:
        """Write all of a row."""
        self._fit(row + 1)
        times = dict.fromkeys((*prompt, *generated), 1)
        for token in generated:
            times[token] += 2
        biases = dict(sampling.logit_bias)
        self._marks[row] = self._bits({*times, *biases})
        self._stops[row] = self._bits(set(sampling.stop_token_ids))
        _set(self._counts[row], times)
        _set(self._bias[row], biases)
        penalties = [
            sampling.repetition_penalty,
            sampling.presence_penalty,
            sampling.frequency_penalty,
            LAST_SCORE if sampling.grammar else -torch.inf,
        ]
        self._penalties[row] = put(torch.tensor(penalties), self._device)

    def _fit(self, rows: int) -> None:
        self._marks = fit(self._marks, rows, 0)
        self._stops = fit(self._stops, rows, 0)
        self._counts = fit(self._counts, rows, 0)
        self._bias = fit(self._bias, rows, 0)
        self._penalties = fit(self._penalties, rows, 0)

    def _bits(self, ids: Iterable[int]) -> torch.Tensor:
        """[words] int32 on the device; `ids` are distinct."""
        at = torch.tensor(list(ids), dtype=torch.int64)
        words = torch.zeros(self._words, dtype=torch.int64)
        words.index_add_(0, at // _WORD, 1 << (at % _WORD))
        return put(words.to(torch.int32), self._device)

    def _allowed(self, slots: torch.Tensor) -> torch.Tensor:
        """[M, words] int32 on the host: what the grammars of these slots let come."""
        found = self._guided.masks(self._guided.rows(slots), self._words * (_WORD // 8))
        return found.view(torch.int32)


def _is_noted(sampling: SamplingParams) -> bool:
    return (
        bool(sampling.logit_bias)
        or sampling.repetition_penalty != 1.0
        or sampling.presence_penalty != 0.0
        or sampling.frequency_penalty != 0.0
        or (sampling.min_tokens > 0 and bool(sampling.stop_token_ids))
    )


def _set(row: torch.Tensor, values: Mapping[int, float]) -> None:
    """A row of a table: these values, 0 elsewhere. No wait for the device."""
    row.zero_()
    at = put(torch.tensor(list(values), dtype=torch.int64), row.device)
    row.index_copy_(0, at, put(torch.tensor(list(values.values()), dtype=row.dtype), row.device))
