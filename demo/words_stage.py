"""The third stage: the language model alone learns to conclude, from words that it is given.

"I see a red circle and a blue star, so" is read, not said; what follows is learnt: whether words of
the question stand there too, and how often. Without media, and with nothing else to learn, that
takes cheap steps instead of dear ones.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from demo import questions, scenes
from demo.collate import NO_LABEL
from demo.conversations import two_scenes
from demo.questions import Turn
from demo.seeds import lots
from demo.whole import SOURCE

NAME = "words"
STEPS = 1000
ROWS = 64
LENGTH = 80
_OF_PICTURES = ("is", "is", "how many")
_OF_TWO = ("same shape", "same colour", "same")
_MARK = ", so "


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """[rows, length]."""

    ids: torch.Tensor
    labels: torch.Tensor


def batch(step: int) -> Batch:
    """The data of one step, the same every time."""
    return sampled(ROWS, lots(NAME, step))


def sampled(num: int, rng: random.Random) -> Batch:
    """So many rows."""
    ids = torch.full((num, LENGTH), SOURCE.collator.tokenizer.pad_token_id)
    labels = torch.full((num, LENGTH), NO_LABEL)
    for row in range(num):
        given, learnt = _tokens(rng)
        end = len(given) + len(learnt)
        ids[row, :end] = torch.tensor(given + learnt)
        labels[row, len(given) : end] = torch.tensor(learnt)
    return Batch(ids=ids, labels=labels)


def _tokens(rng: random.Random) -> tuple[list[int], list[int]]:
    """What is read, and what is learnt, of a turn that fits."""
    while True:
        turn = _turn(rng)
        if turn is None or _MARK not in turn.answer:
            continue
        end = turn.answer.rindex(_MARK) + 1
        told, concluded = turn.answer[:end], turn.answer[end:]
        read = f"<|im_start|>user\n{turn.question}<|im_end|>\n<|im_start|>assistant\n{told}"
        given, learnt = (SOURCE.collator.ids(part) for part in (read, f"{concluded}<|im_end|>"))
        if len(given) + len(learnt) <= LENGTH:
            return given, learnt


def _turn(rng: random.Random) -> Turn | None:
    if rng.random() < 0.3:
        return questions.of_two(rng.choice(_OF_TWO), *two_scenes(rng), rng)
    return questions.fairly(rng.choice(_OF_PICTURES), scenes.sampled_scene(rng), rng)


class Words(torch.nn.Module):
    """What this stage trains."""

    def __init__(self, thinker: Any) -> None:
        super().__init__()
        self.language = thinker.model.language_model
        self.head = thinker.lm_head

    def forward(self, data: Batch) -> tuple[torch.Tensor, Mapping[str, float]]:
        """The loss, and what the log shows."""
        loss, right = concluded(self.language, self.head, data)
        return loss, {"right": right}


def concluded(language: Any, head: Any, data: Batch) -> tuple[torch.Tensor, float]:
    """The loss of what follows, and how much of it is right."""
    hidden = language(input_ids=data.ids, use_cache=False).last_hidden_state
    told = data.labels[:, 1:]
    learnt = told != NO_LABEL
    logits = head(hidden[:, :-1][learnt])
    right = (logits.argmax(-1) == told[learnt]).float().mean()
    return F.cross_entropy(logits, told[learnt]), float(right)


def rate(step: int) -> float:
    """The learning rate: constant behind a warm-up, so that the stage may end anywhere."""
    return 1.0e-3 * min(1.0, (step + 1) / 100)
