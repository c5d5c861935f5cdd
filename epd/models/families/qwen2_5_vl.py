"""Qwen2.5-VL: a tower most of whose layers attend inside windows; positions that tell time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from epd.media.decoded import Clip, Tensors
from epd.models import mrope
from epd.models.adapter import Asked
from epd.models.families.qwen_embeds import IMAGE_EMBEDS, VIDEO_EMBEDS, Grid, seconds_of
from epd.models.families.qwen_vl import OPTIONS, PLACEHOLDERS, TOWERS, Expansion, QwenVL
from epd.models.family import EmbedsField, FamilySpec
from epd.types import Modality

if TYPE_CHECKING:
    import torch

SECONDS = "second_per_grid_ts"


class Qwen25VL(QwenVL):
    """Adapter of Qwen2_5_VLForConditionalGeneration."""

    default_patch_size: ClassVar[int] = 14

    def tower_inputs(self, visual: Any, grid: torch.Tensor, device: torch.device) -> dict[str, Any]:
        from transformers.vision_utils import get_vision_window_index

        from epd.attention.staging import put

        index, window_ends = get_vision_window_index(
            grid,
            spatial_merge_size=visual.spatial_merge_size,
            window_size=visual.window_size,
            patch_size=visual.patch_size,
        )
        return {"window_index": put(index, device), "cu_window_seqlens": window_ends}

    def rows(self, features: Any) -> list[torch.Tensor]:
        return list(features.pooler_output)

    def seconds_of_clip(self, clip: Clip) -> list[float]:
        """From one frame of rows to the next, were the frames evenly spread over the video."""
        frames_per_second = len(clip.indices) / clip.info.num_frames * clip.info.fps
        return [self.temporal_patch_size / frames_per_second]

    def seconds_of_embeds(self, tensors: Tensors, grid: Grid) -> list[float]:
        return seconds_of(tensors, SECONDS, num=1)

    def expand_clip(self, grid: Grid, seconds: Sequence[float], asked: Asked) -> Expansion:
        frames, height, width = grid
        times = self._times(frames, seconds[0])
        places = mrope.grid(times, height, width)
        return self._only_rows(asked.modality, places, max(height, width))

    def _times(self, frames: int, seconds: float) -> list[int]:
        """Positions in time; computed in float32 and cut, as transformers does."""
        import torch

        interval = int(self.vision_config.get("tokens_per_second", 4)) * torch.tensor(seconds)
        times: list[int] = (torch.arange(frames) * interval).long().tolist()
        return times


FAMILY = FamilySpec(
    name="qwen2_5_vl",
    architectures=("Qwen2_5_VLForConditionalGeneration",),
    adapter=Qwen25VL,
    modalities=(Modality.IMAGE, Modality.VIDEO),
    placeholders=PLACEHOLDERS,
    rotary="mrope",
    towers=TOWERS,
    processor_options=OPTIONS,
    embeds={
        Modality.IMAGE: IMAGE_EMBEDS,
        Modality.VIDEO: (*VIDEO_EMBEDS, EmbedsField(name=SECONDS, shape="[1]")),
    },
)
