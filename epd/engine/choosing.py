"""From the logits of a batch to ids: what changes scores, then the likeliest or a draw.

Two ways give the same ids: one operation of torch after the other, on any device, which says what
is meant; and kernels that make all of it from the logits in one pass, where they run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from epd.attention import kernels
from epd.engine.adjusting import Adjustments
from epd.engine.draw import Draws
from epd.engine.largest import argmax_of_finite
from epd.engine.one_pass import OnePass
from epd.errors import EpdError
from epd.grammar import Grammars
from epd.types import SamplingParams


class Choosing(Protocol):
    """Slots are small numbers for requests; `slots` and `index` [N] are on the host."""

    def add(
        self,
        slot: int,
        sampling: SamplingParams,
        choice: int,
        prompt: Sequence[int],
        generated: Sequence[int],
    ) -> bool:
        """A request takes the slot. Whether nothing will ever change its scores."""

    def forget(self, slot: int) -> None:
        """Its request is gone."""

    def choose(
        self, logits: torch.Tensor, slots: torch.Tensor, index: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """[N, vocab] for token number `index` of `slots` -> [N] ids, in bounds, and: all finite?"""

    def chosen(self, slots: torch.Tensor, ids: Sequence[int]) -> None:
        """The same ids once they are on the host; none where it is negative."""

    @property
    def needs_ids(self) -> bool:
        """Whether somebody's next scores depend on ids that chosen() is to tell."""

    def fault(self, slot: int) -> EpdError | None:
        """Why nothing may come for the slot, if it is known."""


def choosing_for(vocab_size: int, device: torch.device, grammars: Grammars) -> Choosing:
    """The one for the device."""
    way = OnePass if kernels.compiled(device) else StepByStep
    return way(vocab_size, device, grammars)


class StepByStep(Adjustments):
    """One operation after the other, each for the rows that it concerns."""

    def __init__(self, vocab_size: int, device: torch.device, grammars: Grammars) -> None:
        super().__init__(vocab_size, device, grammars)
        self._draws = Draws(device)

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
        return self.enter(slot, sampling, prompt, generated)

    def choose(
        self, logits: torch.Tensor, slots: torch.Tensor, index: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See Choosing."""
        scores = self.apply(logits, slots, index)
        ids, finite = argmax_of_finite(scores, logits)
        ids = self._draws.draw(scores, ids, slots, index)
        self.accept(slots, index, ids)
        return ids, finite
