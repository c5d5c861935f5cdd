"""Qwen2.5-VL: a tower most of whose layers attend inside windows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from epd.models.families.qwen_vl import QwenVL
from epd.models.family import FamilySpec
from epd.types import Modality

if TYPE_CHECKING:
    import torch


class Qwen25VL(QwenVL):
    """Adapter of Qwen2_5_VLForConditionalGeneration."""

    default_patch_size: ClassVar[int] = 14

    def tower_inputs(self, visual: Any, grid: torch.Tensor, device: torch.device) -> dict[str, Any]:
        from transformers.vision_utils import get_vision_window_index

        index, window_ends = get_vision_window_index(
            grid,
            spatial_merge_size=visual.spatial_merge_size,
            window_size=visual.window_size,
            patch_size=visual.patch_size,
        )
        return {"image_window_index": index.to(device), "image_cu_window_seqlens": window_ends}

    def rows(self, features: Any) -> list[torch.Tensor]:
        return list(features.pooler_output)


FAMILY = FamilySpec(
    name="qwen2_5_vl",
    architectures=("Qwen2_5_VLForConditionalGeneration",),
    adapter=Qwen25VL,
    modalities=(Modality.IMAGE,),
    placeholders={Modality.IMAGE: "<|image_pad|>"},
    rotary="mrope",
    towers={Modality.IMAGE: ("visual",)},
)
