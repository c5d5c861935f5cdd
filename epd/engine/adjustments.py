"""What changes logits before a token is chosen: bias, penalties, and stops that come too early.

Each adjustment knows which requests want it and keeps a row of state for each of them, so that
others cost nothing. Which rows of a batch are concerned is worked out on the host, from host
tensors: nothing here waits for the device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from epd.attention.staging import put
from epd.engine.tables import IdLists, Seats, fit
from epd.types import SamplingParams

LAST_SCORE = -1e30
"""No chance beside any other score, and the best one where all others are -inf."""


class Adjustment(ABC):
    """One of them, for all requests. `places` in the batch and `rows` of state are host tensors."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seats = Seats()
        self._rows = torch.zeros(0, 1, dtype=torch.int64)  # by slot, 1 + its row; 0: not wanted

    def add(
        self, slot: int, sampling: SamplingParams, prompt: Sequence[int], generated: Sequence[int]
    ) -> None:
        """A request takes the slot."""
        self._rows = fit(self._rows, slot + 1, 1)
        if self.wanted(sampling):
            row = self._seats.take()
            self._rows[slot] = 1 + row
            self.enter(row, sampling, prompt, generated)

    def forget(self, slot: int) -> None:
        """Its request is gone."""
        row = int(self._rows[slot])
        if row:
            self._seats.give_back(row - 1)
            self._rows[slot] = 0

    def concerned(self, slots: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Places in the batch where it applies now."""
        if not self._seats.num_taken:
            return slots[:0]
        return self._rows[slots, 0].nonzero()[:, 0]

    def rows(self, slots: torch.Tensor) -> torch.Tensor:
        """Rows of state of slots that want it."""
        return self._rows[slots, 0] - 1

    @abstractmethod
    def wanted(self, sampling: SamplingParams) -> bool:
        """Does it change anything for such a request?"""

    @abstractmethod
    def enter(
        self, row: int, sampling: SamplingParams, prompt: Sequence[int], generated: Sequence[int]
    ) -> None:
        """Write all of the row."""

    @abstractmethod
    def adjust(self, scores: torch.Tensor, places: torch.Tensor, rows: torch.Tensor) -> None:
        """Change scores[places] in place."""

    def accept(self, rows: torch.Tensor, places: torch.Tensor, ids: torch.Tensor) -> None:
        """ids[places] were chosen. Makes no difference to some."""
        return


class Bias(Adjustment):
    """logit_bias: a dense row of the vocabulary for each request that has one."""

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        super().__init__(device)
        self._bias = torch.zeros(0, vocab_size, device=device)

    def wanted(self, sampling: SamplingParams) -> bool:
        return bool(sampling.logit_bias)

    def enter(
        self, row: int, sampling: SamplingParams, prompt: Sequence[int], generated: Sequence[int]
    ) -> None:
        self._bias = fit(self._bias, row + 1, 0)
        bias = torch.zeros(self._bias.shape[1])
        ids, values = zip(*sampling.logit_bias, strict=True)
        bias[torch.tensor(ids)] = torch.tensor(values, dtype=torch.float32)
        self._bias[row] = put(bias, self._device)

    def adjust(self, scores: torch.Tensor, places: torch.Tensor, rows: torch.Tensor) -> None:
        at, rows = put(torch.stack([places, rows]), self._device)
        scores.index_add_(0, at, self._bias[rows])


class RepetitionPenalty(Adjustment):
    """Ids of prompt and answer: positive scores are divided by the penalty, others multiplied.

    Works on the list of a request's ids, which is short beside the vocabulary.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._seen = IdLists(device)
        self._penalty = torch.ones(0, 1, device=device)

    def wanted(self, sampling: SamplingParams) -> bool:
        return sampling.repetition_penalty != 1.0

    def enter(
        self, row: int, sampling: SamplingParams, prompt: Sequence[int], generated: Sequence[int]
    ) -> None:
        self._seen.set(row, list({*prompt, *generated}))
        self._penalty = fit(self._penalty, row + 1, 1)
        self._penalty[row] = sampling.repetition_penalty

    def adjust(self, scores: torch.Tensor, places: torch.Tensor, rows: torch.Tensor) -> None:
        seen = self._seen.get(rows)
        at, rows = put(torch.stack([places, rows]), self._device)
        penalty = self._penalty[rows]
        found = scores[at[:, None], seen]
        scores[at[:, None], seen] = torch.where(found < 0, found * penalty, found / penalty)

    def accept(self, rows: torch.Tensor, places: torch.Tensor, ids: torch.Tensor) -> None:
        self._seen.append(rows, ids[put(places, self._device)])


class CountPenalties(Adjustment):
    """presence_penalty for each generated id, frequency_penalty for each time it was generated."""

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        super().__init__(device)
        self._generated = IdLists(device)
        self._counts = torch.zeros(0, vocab_size, dtype=torch.int32, device=device)
        self._penalties = torch.zeros(0, 2, device=device)

    def wanted(self, sampling: SamplingParams) -> bool:
        return sampling.presence_penalty != 0.0 or sampling.frequency_penalty != 0.0

    def enter(
        self, row: int, sampling: SamplingParams, prompt: Sequence[int], generated: Sequence[int]
    ) -> None:
        self._generated.set(row, list(generated))
        self._counts = fit(self._counts, row + 1, 0)
        chosen = put(torch.tensor(generated, dtype=torch.int64), self._device)
        # Not bincount, which waits for its largest id.
        self._counts[row] = 0
        self._counts[row].index_add_(0, chosen, torch.ones_like(chosen, dtype=torch.int32))
        penalties = torch.tensor([sampling.presence_penalty, sampling.frequency_penalty])
        self._penalties = fit(self._penalties, row + 1, 2)
        self._penalties[row] = put(penalties, self._device)

    def adjust(self, scores: torch.Tensor, places: torch.Tensor, rows: torch.Tensor) -> None:
        generated = self._generated.get(rows)
        at, rows = put(torch.stack([places, rows]), self._device)[:, :, None]
        presence, frequency = self._penalties[rows[:, 0]].chunk(2, -1)
        # An empty list names ids that were not generated: their count is 0, nothing changes.
        counts = self._counts[rows, generated]
        taken = torch.where(counts > 0, presence, 0.0) + counts * frequency
        scores[at, generated] = scores[at, generated] - taken

    def accept(self, rows: torch.Tensor, places: torch.Tensor, ids: torch.Tensor) -> None:
        at, on_device = put(torch.stack([places, rows]), self._device)
        self._generated.append(rows, ids[at])
        self._counts[on_device, ids[at]] += 1


class LateStop(Adjustment):
    """min_tokens: until then no id that would stop the answer, unless its grammar ends there."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._stops = IdLists(device)
        self._scores = torch.zeros(0, 1, device=device)
        self._first = torch.zeros(0, 1, dtype=torch.int64)  # by slot: where a stop may come

    def add(
        self, slot: int, sampling: SamplingParams, prompt: Sequence[int], generated: Sequence[int]
    ) -> None:
        super().add(slot, sampling, prompt, generated)
        self._first = fit(self._first, slot + 1, 1)
        self._first[slot] = sampling.min_tokens

    def concerned(self, slots: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        if not self._seats.num_taken:
            return slots[:0]
        early = index < self._first[slots, 0]
        return ((self._rows[slots, 0] > 0) & early).nonzero()[:, 0]

    def wanted(self, sampling: SamplingParams) -> bool:
        return sampling.min_tokens > 0 and bool(sampling.stop_token_ids)

    def enter(
        self, row: int, sampling: SamplingParams, prompt: Sequence[int], generated: Sequence[int]
    ) -> None:
        self._stops.set(row, sampling.stop_token_ids)
        self._scores = fit(self._scores, row + 1, 1)
        self._scores[row] = LAST_SCORE if sampling.grammar else -torch.inf

    def adjust(self, scores: torch.Tensor, places: torch.Tensor, rows: torch.Tensor) -> None:
        at, on_device = put(torch.stack([places, rows]), self._device)[:, :, None]
        scores[at, self._stops.get(rows)] = self._scores[on_device[:, 0]]
