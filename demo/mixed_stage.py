"""The fourth stage: pictures, clips, sounds and talk together, and crowds for the vision tower.

Crowds are pictures of up to nine shapes, about which nothing is asked. Rows of the stage before go
on, or what they taught would be forgotten.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from demo import ear_stage, labels, patches, scenes, words_stage
from demo.collate import Batch, Heard
from demo.conversations import conversation
from demo.drawing import render
from demo.seeds import lots
from demo.sizes import IMAGE_TOKENS, TOKEN
from demo.whole import ORDER, SOURCE, Whole

NAME = "mixed"
STEPS = 1200
READING = 1.0
POINTING = 0.5
CROWDS = 4
WORDS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixed:
    """Conversations, pictures that only the tower looks at, sounds that only the ear hears."""

    talk: Batch
    crowds: patches.Patches
    crowd_labels: torch.Tensor
    words: words_stage.Batch
    sounds: Heard


def batch(step: int) -> Mixed:
    """The data of one step, the same every time."""
    return mixed(lots(NAME, step))


def mixed(rng: random.Random, num_sounds: int = 0, num_words: int = WORDS) -> Mixed:
    talk = SOURCE.collator([conversation(kind, rng, fair=True) for kind in ORDER], rng)
    crowds = [scenes.sampled_crowd(rng) for _ in range(CROWDS)]
    pictures = [render.picture(scene, rng) for scene in crowds]
    grids = [(p.shape[0] // TOKEN, p.shape[1] // TOKEN) for p in pictures]
    return Mixed(
        talk=talk,
        crowds=patches.picture_patches(pictures, IMAGE_TOKENS[1]),
        crowd_labels=labels.picture_labels(crowds, grids, IMAGE_TOKENS[1]),
        words=words_stage.sampled(num_words, rng),
        sounds=ear_stage.sampled(num_sounds, rng),
    )


class Mixing(Whole):
    """The whole model, learning from both."""

    def forward(self, data: Mixed) -> tuple[torch.Tensor, Mapping[str, float]]:
        loss, figures = self.judged(data.talk, [(data.crowds, data.crowd_labels)], data.sounds)
        concluding, right = words_stage.concluded(
            self.thinker.model.language_model, self.thinker.lm_head, data.words
        )
        return loss + concluding, {**figures, "words": right}


def rate(step: int) -> float:
    """The learning rate: constant behind a warm-up, so that the stage may end anywhere."""
    return 1.0e-3 * min(1.0, (step + 1) / 100)
