"""The whole model in training: it answers, and its towers go on saying what they perceive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from demo import architecture, checkpoint, hearing, language, sight
from demo.collate import NO_LABEL, Batch, Collator, Heard
from demo.compiling import compile_in_place
from demo.patches import Patches
from demo.pointing import LAYER, Pointing

KINDS = {"picture": 7, "clip": 3, "sound": 2, "two": 1, "both": 1, "text": 1}
ORDER = tuple(kind for kind, num in KINDS.items() for _ in range(num))
VERDICTS = 3.0


class Source:
    """The collator, made in the process that draws the data."""

    @cached_property
    def collator(self) -> Collator:
        return Collator(checkpoint.build_processor(checkpoint.build_tokenizer()))


SOURCE = Source()


@dataclass
class _Told:
    loss: torch.Tensor
    right: torch.Tensor
    row: torch.Tensor


class Whole(torch.nn.Module):
    """The model, and what only training needs.

    `weight`: of what the towers say of their tokens. `pointing`: of where one head looks.
    `verdicts`: of "yes" and "no", among the words of an answer.
    """

    def __init__(self, tokenizer: Any, *, weight: float, pointing: float = 0.0) -> None:
        super().__init__()
        self.weight, self.pointing, self.verdicts = weight, pointing, VERDICTS
        self._verdicts = torch.tensor(tokenizer(" yes no")["input_ids"])
        self.thinker: Any = checkpoint.build_model(tokenizer)
        self.reading = sight.Reading(architecture.HIDDEN)
        self.saying = hearing.Saying(architecture.HIDDEN)
        language = self.thinker.model.language_model
        language.config._attn_implementation = "eager"  # as in demo/attention.py
        self._pointing = Pointing(language)
        compile_in_place(layer for i, layer in enumerate(language.layers) if i != LAYER)

    def start(self, tower: Mapping[str, torch.Tensor], ear: Mapping[str, torch.Tensor]) -> None:
        """With both towers, and what they say, of the stages before."""
        _put(self.thinker.model.visual, tower, "visual.")
        _put(self.reading, tower, "reading.")
        _put(self.thinker.model.audio_tower, ear, "tower.")
        _put(self.saying, ear, "saying.")

    def keep_towers(self) -> None:
        """From now on only the language model learns."""
        for tower in (self.thinker.model.visual, self.thinker.model.audio_tower):
            tower.requires_grad_(False)
        self.weight = 0.0

    def judged(
        self, data: Batch, more: Sequence[tuple[Patches, torch.Tensor]], sounds: Heard
    ) -> tuple[torch.Tensor, Mapping[str, float]]:
        """The loss, and what the log shows. `more`: grids for the tower alone, and their labels;
        `sounds`: for the ear alone.
        """
        rows = language.perceived(self.thinker, data)
        with self._pointing.watching():
            hidden = language.hidden_states(self.thinker, data, rows)
        pointing, points = self._pointing.loss(data)
        told = _Told(*language.answers(self.thinker, data, hidden))
        grids = (rows.pictures, rows.frames)
        shown = [*grids, *(sight.see(self.thinker.model.visual, part) for part, _ in more)]
        labels = [data.picture_labels, data.frame_labels, *(label for _, label in more)]
        reading, right = self.reading(
            torch.cat([found.flatten(0, 1) for found in shown]),
            torch.cat([label.flatten(0, 1) for label in labels]),
        )
        heard_alone = language.heard(self.thinker, sounds)
        saying, heard = self.saying(
            torch.cat([rows.sounds, heard_alone]), torch.cat([data.heard.labels, sounds.labels])
        )
        loss = self._answering(data, told) + self.weight * (reading + saying)
        loss = loss + self.pointing * pointing
        return loss, {**right, **heard, "points": points, **_by_kind(told)}

    def _answering(self, data: Batch, told: _Told) -> torch.Tensor:
        learnt = data.labels[:, 1:].flatten()
        weighty = torch.isin(learnt[learnt != NO_LABEL], self._verdicts)
        weight = torch.where(weighty, self.verdicts, 1.0)
        return (told.loss * weight).sum() / weight.sum()


def _put(part: torch.nn.Module, state: Mapping[str, torch.Tensor], prefix: str) -> None:
    part.load_state_dict(
        {name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)}
    )


def _by_kind(told: _Told) -> dict[str, float]:
    """How many of the learnt tokens are right."""
    found = {}
    for kind in KINDS:
        rows = torch.tensor([i for i, each in enumerate(ORDER) if each == kind])
        found[kind] = float(told.right[torch.isin(told.row, rows)].float().mean())
    return found
