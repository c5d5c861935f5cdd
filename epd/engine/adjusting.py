"""All that changes logits before a token is chosen, in the order in which it applies."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from epd.engine.adjustments import Adjustment, Bias, CountPenalties, LateStop, RepetitionPenalty
from epd.engine.guided import Guided
from epd.errors import EpdError
from epd.grammar import Grammars
from epd.types import SamplingParams


class Adjustments:
    """All of them, in the order in which they apply. Slots are small numbers for requests."""

    def __init__(self, vocab_size: int, device: torch.device, grammars: Grammars) -> None:
        self._guided = Guided(vocab_size, device, grammars)
        self._all: tuple[Adjustment, ...] = (
            Bias(vocab_size, device),
            RepetitionPenalty(device),
            CountPenalties(vocab_size, device),
            LateStop(device),
            self._guided,
        )

    def enter(
        self, slot: int, sampling: SamplingParams, prompt: Sequence[int], generated: Sequence[int]
    ) -> bool:
        """A request takes the slot. Whether nothing will ever be changed for it."""
        for adjustment in self._all:
            adjustment.add(slot, sampling, prompt, generated)
        return not any(adjustment.wanted(sampling) for adjustment in self._all)

    def forget(self, slot: int) -> None:
        """Its request is gone."""
        for adjustment in self._all:
            adjustment.forget(slot)

    def apply(self, logits: torch.Tensor, slots: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """[N, vocab] for token number `index` of `slots`, both [N] on the host -> adjusted scores.

        A new tensor in float32 where anything changes, else the logits themselves.
        """
        scores = logits
        for adjustment in self._all:
            places = adjustment.concerned(slots, index)
            if len(places):
                if scores is logits:
                    scores = logits.to(torch.float32, copy=True)
                adjustment.adjust(scores, places, adjustment.rows(slots[places]))
        return scores

    def accept(self, slots: torch.Tensor, index: torch.Tensor, ids: torch.Tensor) -> None:
        """These ids, on the device, were chosen for the slots."""
        for adjustment in self._all:
            places = adjustment.concerned(slots, index)
            if len(places):
                adjustment.accept(adjustment.rows(slots[places]), places, ids)

    def chosen(self, slots: torch.Tensor, ids: Sequence[int]) -> None:
        """The same ids once they are on the host; none where it is negative."""
        self._guided.chosen(slots, ids)

    @property
    def needs_ids(self) -> bool:
        """Whether somebody's next scores depend on ids that chosen() is to tell."""
        return self._guided.any

    def fault(self, slot: int) -> EpdError | None:
        """Why nothing may come for the slot, if it is known."""
        return self._guided.fault(slot)
