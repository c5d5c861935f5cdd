"""The second stage: the sound tower learns each row's pitch, and how many tones have begun."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from demo import architecture, checkpoint, hearing, sounds
from demo.collate import FRAMES_PER_S, Heard, heard_together, num_rows
from demo.seeds import lots
from demo.whole import SOURCE

NAME = "ear"
STEPS = 1000
SOUNDS = 20
PITCHES = ("", "low", "high", "rising", "falling")
MOST_TONES = 5
SIZES = (len(PITCHES), MOST_TONES + 1)
_ROW = sounds.RATE // FRAMES_PER_S * 4  # samples that become one row


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """`labels` int64 [rows of all sounds, 2] of pitch, and of tones begun so far."""

    heard: Heard
    labels: torch.Tensor


def batch(step: int) -> Batch:
    """The data of one step, the same every time."""
    rng = lots(NAME, step)
    found, labels = [], []
    for _ in range(SOUNDS):
        heard = sounds.sampled_heard(rng)
        wave, marks = sounds.marked(heard, rng)
        found.append(SOURCE.collator.spectrogram(wave))
        labels.append(row_labels(heard, marks, num_rows(found[-1][1])))
    told = torch.from_numpy(np.concatenate(labels))
    return Batch(heard=heard_together(found), labels=told)


def row_labels(heard: sounds.Heard, marks: NDArray[np.int64], num: int) -> NDArray[np.int64]:
    """[num, 2]."""
    padded = np.zeros(max(num * _ROW, len(marks)), np.int64)
    padded[: len(marks)] = marks
    tones = padded[: num * _ROW].reshape(num, _ROW).max(1, initial=0)
    pitch = PITCHES.index(heard.pitch)
    return np.stack([np.where(tones > 0, pitch, 0), np.maximum.accumulate(tones)], 1)


class Ear(torch.nn.Module):
    """What this stage trains."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self.tower: Any = checkpoint.build_model(tokenizer).model.audio_tower
        self.saying = torch.nn.Linear(architecture.HIDDEN, sum(SIZES))

    def forward(self, data: Batch) -> tuple[torch.Tensor, Mapping[str, float]]:
        """The loss, and what the log shows."""
        rows = hearing.hear(self.tower, data.heard.features, data.heard.lengths)
        loss, right = torch.zeros(()), []
        for said, told in zip(self.saying(rows).split(SIZES, -1), data.labels.T, strict=True):
            loss = loss + F.cross_entropy(said, told)
            right.append(float((said.argmax(-1) == told).float().mean()))
        return loss, {"pitch": right[0], "tones": right[1]}


def rate(step: int) -> float:
    """The learning rate: constant behind a warm-up, so that the stage may end anywhere."""
    return 1.0e-3 * min(1.0, (step + 1) / 60)
