"""LLaVA-NeXT: pictures of any resolution, before Llama, Mistral and others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from epd.media.decoded import Picture
from epd.models.adapter import Prepared
from epd.models.families.anyres import AnyResolution, tiles
from epd.models.families.llava_embeds import IMAGE_EMBEDS, IMAGE_SIZES
from epd.models.families.llava_style import patch_side
from epd.models.family import FamilySpec
from epd.types import MediaOptions, Modality

if TYPE_CHECKING:
    import torch


class LlavaNext(AnyResolution):
    """Adapter of LlavaNextForConditionalGeneration."""

    def expected(self, processor: Any) -> dict[str, tuple[Any, Any]]:
        strategy = self.checkpoint.config.get("vision_feature_select_strategy", "default")
        return {
            **super().expected(processor),
            "patch_size": (processor.patch_size, patch_side(self.checkpoint)),
            "vision_feature_select_strategy": (processor.vision_feature_select_strategy, strategy),
        }

    def picture(
        self, processor: Any, media: Picture, options: MediaOptions
    ) -> tuple[dict[str, torch.Tensor], str]:
        features = processor.image_processor([media.image], return_tensors="pt")
        inputs = {
            "pixel_values": features["pixel_values"][0],
            "image_sizes": features["image_sizes"],
        }
        return inputs, processor.replace_image_token(features, 0)

    def encode(
        self, model: Any, modality: Modality, batch: Sequence[Prepared], device: torch.device
    ) -> list[torch.Tensor]:
        from epd.attention.staging import put

        # Sizes stay on the CPU, where the packing reads them without waiting for the device.
        pixels, sizes = tiles([item.inputs for item in batch])
        return list(model.model.get_image_features(put(pixels, device), sizes).pooler_output)


FAMILY = FamilySpec(
    name="llava_next",
    architectures=("LlavaNextForConditionalGeneration",),
    adapter=LlavaNext,
    modalities=(Modality.IMAGE,),
    placeholders={Modality.IMAGE: "<image>"},
    rotary="1d",
    towers={Modality.IMAGE: ("vision_tower", "multi_modal_projector", "image_newline")},
    embeds={Modality.IMAGE: (IMAGE_EMBEDS, IMAGE_SIZES)},
)
