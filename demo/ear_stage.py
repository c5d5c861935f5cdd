"""The second stage: the sound tower learns to say of each row what is heard. No language yet."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import torch

from demo import architecture, checkpoint, hearing, sounds
from demo.collate import Heard, heard_together
from demo.seeds import lots
from demo.whole import SOURCE

NAME = "ear"
STEPS = 1500
SOUNDS = 20


def batch(step: int) -> Heard:
    """The data of one step, the same every time."""
    return sampled(SOUNDS, lots(NAME, step))


def sampled(num: int, rng: random.Random) -> Heard:
    drawn = [sounds.sampled_heard(rng) for _ in range(num)]
    return heard_together([SOURCE.collator.sound(heard, rng) for heard in drawn])


class Ear(torch.nn.Module):
    """What this stage trains."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self.tower: Any = checkpoint.build_model(tokenizer).model.audio_tower
        self.saying = hearing.Saying(architecture.HIDDEN)

    def forward(self, data: Heard) -> tuple[torch.Tensor, Mapping[str, float]]:
        """The loss, and what the log shows."""
        rows = hearing.hear(self.tower, data.features, data.lengths)
        found: tuple[torch.Tensor, Mapping[str, float]] = self.saying(rows, data.labels)
        return found


def rate(step: int) -> float:
    """The learning rate: constant behind a warm-up, so that the stage may end anywhere."""
    return 1.0e-3 * min(1.0, (step + 1) / 60)
