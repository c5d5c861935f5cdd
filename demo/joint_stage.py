"""The second stage: pictures, clips, sounds and talk together. The tower goes on saying what it
shows, at a smaller weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from demo import architecture, checkpoint, language, sight
from demo.collate import NO_LABEL, Batch, Collator
from demo.conversations import conversation
from demo.patches import Patches
from demo.seeds import lots

NAME = "joint"
STEPS = 650
KINDS = {"picture": 6, "clip": 2, "sound": 2, "two": 2, "both": 1, "text": 1}
ORDER = tuple(kind for kind, num in KINDS.items() for _ in range(num))
_READING = 0.5


class Source:
    """The collator, made in the process that draws the data."""

    @cached_property
    def collator(self) -> Collator:
        return Collator(checkpoint.build_processor(checkpoint.build_tokenizer()))


SOURCE = Source()


def batch(step: int) -> Batch:
    """The data of one step, the same every time."""
    rng = lots(NAME, step)
    return SOURCE.collator([conversation(kind, rng) for kind in ORDER], rng)


def rate(step: int) -> float:
    """The learning rate: constant behind a warm-up, so that the stage may end anywhere."""
    return 1.0e-3 * min(1.0, (step + 1) / 100)


@dataclass
class _Told:
    loss: torch.Tensor
    right: torch.Tensor
    row: torch.Tensor


class Whole(torch.nn.Module):
    """The model, and what only training needs. `weight`: of what the tower says of its tokens."""

    def __init__(self, tokenizer: Any, *, weight: float = _READING) -> None:
        super().__init__()
        self.weight = weight
        self.verdicts = 1.0  # how much "yes" and "no" weigh among the words of an answer
        self._verdicts = torch.tensor(tokenizer(" yes no")["input_ids"])
        self.thinker: Any = checkpoint.build_model(tokenizer)
        self.reading = sight.Reading(architecture.HIDDEN)

    def start(self, tower: Mapping[str, torch.Tensor]) -> None:
        """With the tower and the reading of the first stage."""
        parts = {"visual.": self.thinker.model.visual, "reading.": self.reading}
        for prefix, part in parts.items():
            mine = {k.removeprefix(prefix): v for k, v in tower.items() if k.startswith(prefix)}
            part.load_state_dict(mine)

    def forward(self, data: Batch) -> tuple[torch.Tensor, Mapping[str, float]]:
        return self.judged(data, ())

    def judged(
        self, data: Batch, more: Sequence[tuple[Patches, torch.Tensor]]
    ) -> tuple[torch.Tensor, Mapping[str, float]]:
        """The loss, and what the log shows. `more`: grids for the tower alone, and their labels."""
        rows = language.seen(self.thinker, data)
        hidden = language.hidden_states(self.thinker, data, rows)
        told = _Told(*language.answers(self.thinker, data, hidden))
        shown = [*rows, *(sight.see(self.thinker.model.visual, part) for part, _ in more)]
        labels = [data.picture_labels, data.frame_labels, *(label for _, label in more)]
        reading, right = self.reading(
            torch.cat([found.flatten(0, 1) for found in shown]),
            torch.cat([label.flatten(0, 1) for label in labels]),
        )
        figures = dict(zip(("shape", "colour", "cell"), right, strict=True))
        return self._answering(data, told) + self.weight * reading, figures | _by_kind(told)

    def _answering(self, data: Batch, told: _Told) -> torch.Tensor:
        learnt = data.labels[:, 1:].flatten()
        weighty = torch.isin(learnt[learnt != NO_LABEL], self._verdicts)
        weight = torch.where(weighty, self.verdicts, 1.0)
        return (told.loss * weight).sum() / weight.sum()


def _by_kind(told: _Told) -> dict[str, float]:
    """How many of the learnt tokens are right."""
    found = {}
    for kind in KINDS:
        rows = torch.tensor([i for i, each in enumerate(ORDER) if each == kind])
        found[kind] = float(told.right[torch.isin(told.row, rows)].float().mean())
    return found
