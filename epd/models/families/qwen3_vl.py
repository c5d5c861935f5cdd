"""Qwen3-VL, the dense models: a tower with learned positions, and rows that go in at many depths.

Some of the tower's layers have a merger of their own. Its output is added to the hidden states
after the language model's first layers, one level per layer. A row is the embedding followed by
one slice per level: [hidden * (1 + levels)].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from epd.models.families.qwen_vl import QwenVL
from epd.models.family import FamilySpec
from epd.types import Modality

if TYPE_CHECKING:
    import torch

    from epd.models.spec import Checkpoint


class Qwen3VL(QwenVL):
    """Adapter of Qwen3VLForConditionalGeneration."""

    default_patch_size: ClassVar[int] = 16

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self.deepstack_levels = len(self.vision_config.get("deepstack_visual_indexes", (8, 16, 24)))

    def tower_inputs(self, visual: Any, grid: torch.Tensor, device: torch.device) -> dict[str, Any]:
        from transformers.vision_utils import get_vision_interpolation_indices_and_weights

        indices, weights = get_vision_interpolation_indices_and_weights(
            grid,
            num_grid_per_side=visual.num_grid_per_side,
            mode=visual.interpolation_mode,
            align_corners=visual.interpolation_align_corners,
            spatial_merge_size=visual.spatial_merge_size,
        )
        return {
            "image_interp_indices": indices.to(device),
            "image_interp_weights": weights.to(device),
        }

    def rows(self, features: Any) -> list[torch.Tensor]:
        import torch

        levels = (features.pooler_output, *features.deepstack_features)
        return [torch.cat(slices, dim=1) for slices in zip(*levels, strict=True)]


FAMILY = FamilySpec(
    name="qwen3_vl",
    architectures=("Qwen3VLForConditionalGeneration",),
    adapter=Qwen3VL,
    modalities=(Modality.IMAGE,),
    placeholders={Modality.IMAGE: "<|image_pad|>"},
    rotary="mrope",
    towers={Modality.IMAGE: ("visual",)},
)
