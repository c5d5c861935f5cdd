"""Qwen2.5-VL whose tower sleeps for as long as a tower would compute.

Its rows are random and always the same. So many encode workers can run beside each other on few
cores as if each had a device of its own; everything else of them is real.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from epd.models.adapter import Prepared
from epd.models.families import qwen2_5_vl
from epd.types import Modality

if TYPE_CHECKING:
    import torch

SECONDS = "tower_s_per_item"
"""The delay, in config.json."""


class DelayedTower(qwen2_5_vl.Qwen25VL):
    """Adapter of the family."""

    def encode(
        self, model: Any, modality: Modality, batch: Sequence[Prepared], device: torch.device
    ) -> list[torch.Tensor]:
        import torch

        time.sleep(float(self.checkpoint.config[SECONDS]) * len(batch))
        weights = next(model.parameters())
        generator = torch.Generator().manual_seed(0)
        return [
            torch.randn(item.layout.num_rows, item.layout.width, generator=generator).to(weights)
            for item in batch
        ]


def model_class() -> type:
    """Imported where weights are loaded, and nowhere else."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    found: type = Qwen2_5_VLForConditionalGeneration
    return found


FAMILY = replace(
    qwen2_5_vl.FAMILY,
    name="delayed_tower",
    architectures=("DelayedTowerForConditionalGeneration",),
    adapter=DelayedTower,
    model_class=model_class,
)
