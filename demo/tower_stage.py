"""The first stage: the vision tower learns to say of each token what it shows. No language yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from demo import architecture, labels, patches, scenes, sight
from demo.drawing import render
from demo.seeds import lots
from demo.sizes import FRAME_TOKENS, IMAGE_TOKENS, TOKEN

NAME = "tower"
STEPS = 1500
PICTURES = 20
CLIPS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    pictures: patches.Patches
    picture_labels: torch.Tensor
    frames: patches.Patches
    frame_labels: torch.Tensor


def batch(step: int) -> Batch:
    """The data of one step, the same every time."""
    rng = lots(NAME, step)
    crowds = [scenes.sampled_crowd(rng) for _ in range(PICTURES)]
    motions = [scenes.sampled_motion(rng) for _ in range(CLIPS)]
    pictures = [render.picture(scene, rng) for scene in crowds]
    clips = [render.frames(motion.frames, rng) for motion in motions]
    sizes = [(p.shape[0] // TOKEN, p.shape[1] // TOKEN) for p in pictures]
    frame_sizes = [(c.shape[1] // TOKEN, c.shape[2] // TOKEN) for c in clips]
    return Batch(
        pictures=patches.picture_patches(pictures, IMAGE_TOKENS[1]),
        picture_labels=labels.picture_labels(crowds, sizes, IMAGE_TOKENS[1]),
        frames=patches.clip_patches(clips, FRAME_TOKENS[1]),
        frame_labels=labels.clip_labels(motions, frame_sizes, FRAME_TOKENS[1]),
    )


class Tower(torch.nn.Module):
    """What this stage trains."""

    def __init__(self) -> None:
        super().__init__()
        self.visual: Any = architecture.vision_tower()
        self.reading = sight.Reading(architecture.HIDDEN)

    def forward(self, data: Batch) -> tuple[torch.Tensor, Mapping[str, float]]:
        """The loss, and what the log shows."""
        rows = [sight.see(self.visual, part) for part in (data.pictures, data.frames)]
        told = [data.picture_labels, data.frame_labels]
        found: tuple[torch.Tensor, Mapping[str, float]] = self.reading(
            torch.cat([row.flatten(0, 1) for row in rows]),
            torch.cat([label.flatten(0, 1) for label in told]),
        )
        return found


def rate(step: int) -> float:
    """The learning rate: constant behind a warm-up, so that the stage may end anywhere."""
    return 1.2e-3 * min(1.0, (step + 1) / 100)
