"""LLaVA-1.5: a picture is one square, and every picture becomes as many tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from epd.media.decoded import Picture, Tensors
from epd.models.adapter import Asked, Prepared
from epd.models.families.llava_embeds import IMAGE_EMBEDS, check_number
from epd.models.families.llava_style import LlavaStyle, image_side, patch_side
from epd.models.family import FamilySpec
from epd.types import MediaOptions, Modality

if TYPE_CHECKING:
    import torch


class Llava(LlavaStyle):
    """Adapter of LlavaForConditionalGeneration. `inputs`: pixel_values [1, 3, side, side]."""

    vision_types: ClassVar[tuple[str, ...]] = ("clip_vision_model", "siglip_vision_model")

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
        return dict(features), processor.replace_image_token(features, 0)

    def embeds_text(self, tensors: Tensors, num_rows: int, asked: Asked) -> str:
        import torch

        side = image_side(self.checkpoint)
        picture = {"pixel_values": torch.empty(1, 3, side, side)}
        text: str = self.processor.replace_image_token(picture, 0)
        check_number(num_rows, len(text) // len(self.processor.image_token), "image_embeds")
        return text

    def encode(
        self, model: Any, modality: Modality, batch: Sequence[Prepared], device: torch.device
    ) -> list[torch.Tensor]:
        import torch

        from epd.attention.staging import put

        pixels = torch.cat([item.inputs["pixel_values"] for item in batch])
        return list(model.model.get_image_features(put(pixels, device)).pooler_output)


FAMILY = FamilySpec(
    name="llava",
    architectures=("LlavaForConditionalGeneration",),
    adapter=Llava,
    modalities=(Modality.IMAGE,),
    placeholders={Modality.IMAGE: "<image>"},
    rotary="1d",
    towers={Modality.IMAGE: ("vision_tower", "multi_modal_projector")},
    embeds={Modality.IMAGE: (IMAGE_EMBEDS,)},
)
