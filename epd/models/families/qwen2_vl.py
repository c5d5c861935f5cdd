"""Qwen2-VL: a tower without windows; a video's frames count up, whatever time is between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from epd.media.decoded import Clip, Tensors
from epd.models.families.qwen_embeds import IMAGE_EMBEDS, VIDEO_EMBEDS, Grid
from epd.models.families.qwen_vl import OPTIONS, PLACEHOLDERS, TOWERS, QwenVL
from epd.models.family import FamilySpec
from epd.types import Modality

if TYPE_CHECKING:
    import torch

    from epd.models.spec import Checkpoint


class Qwen2VL(QwenVL):
    """Adapter of Qwen2VLForConditionalGeneration."""

    default_patch_size: ClassVar[int] = 14

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self.hidden = int(self.vision_config.get("hidden_size", 3584))  # the tower's is embed_dim

    def tower_inputs(self, visual: Any, grid: torch.Tensor, device: torch.device) -> dict[str, Any]:
        return {}

    def rows(self, features: Any) -> list[torch.Tensor]:
        return list(features.pooler_output)

    def seconds_of_clip(self, clip: Clip) -> list[float]:
        return []

    def seconds_of_embeds(self, tensors: Tensors, grid: Grid) -> list[float]:
        return []


FAMILY = FamilySpec(
    name="qwen2_vl",
    architectures=("Qwen2VLForConditionalGeneration",),
    adapter=Qwen2VL,
    modalities=(Modality.IMAGE, Modality.VIDEO),
    placeholders=PLACEHOLDERS,
    rotary="mrope",
    towers=TOWERS,
    processor_options=OPTIONS,
    embeds={Modality.IMAGE: IMAGE_EMBEDS, Modality.VIDEO: VIDEO_EMBEDS},
)
