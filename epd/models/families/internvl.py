"""InternVL 3 and later, in the layout that transformers loads: tiles with a thumbnail, and videos.

A video is a line of text per frame, `Frame1: <img>...</img>`, so its first token may merge with
the text before it. Its frames go through the picture's tower.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from epd.errors import BadRequest
from epd.media.decoded import Picture, Tensors
from epd.models.adapter import Asked, Prepared
from epd.models.families.llava_embeds import IMAGE_EMBEDS, VIDEO_EMBEDS, wrong
from epd.models.families.llava_style import (
    LlavaStyle,
    image_side,
    patch_side,
    settings_of,
)
from epd.models.family import FamilySpec
from epd.models.plain_text import PlainText
from epd.types import MediaOptions, Modality

if TYPE_CHECKING:
    import torch

_MOST_TILES = 64
"""A client may ask for more than the checkpoint says, but not for any number."""


class InternVL(LlavaStyle):
    """Adapter of InternVLForConditionalGeneration.

    `inputs`: pixel_values [tiles or frames, 3, side, side].
    """

    vision_types: ClassVar[tuple[str, ...]] = ("internvl_vision",)

    def expected(self, processor: Any) -> dict[str, tuple[Any, Any]]:
        ratio = self.checkpoint.config.get("downsample_ratio", 0.5)
        patches = image_side(self.checkpoint) // patch_side(self.checkpoint)
        rows = int(patches * ratio) ** 2
        return {
            **super().expected(processor),
            "image_seq_length": (processor.image_seq_length, rows),
        }

    def load_processors(self, modalities: Sequence[Modality]) -> dict[Modality, Any]:
        processors = super().load_processors(modalities)
        placeholders = self.checkpoint.spec.placeholders.values()
        self._plain = PlainText(self.processor.tokenizer.backend_tokenizer, also=placeholders)
        return processors

    def picture(
        self, processor: Any, media: Picture, options: MediaOptions
    ) -> tuple[dict[str, torch.Tensor], str]:
        settings = {**processor.images_kwargs, **_checked(settings_of(options), processor)}
        features = processor.image_processor([media.image], return_tensors="pt", **settings)
        text = processor.replace_image_token(features, 0)
        return {"pixel_values": features["pixel_values"]}, text

    def embeds_text(self, tensors: Tensors, num_rows: int, asked: Asked) -> str:
        each = self.processor.image_seq_length
        num, rest = divmod(num_rows, each)
        if rest:
            name = f"{asked.modality.value}_embeds"
            raise wrong(name, f"has {num_rows} rows, not a multiple of {each}")
        if asked.modality is Modality.IMAGE:
            picture: str = self.processor.replace_image_token({"num_patches": [num]}, 0)
            return picture
        import torch

        frames = [torch.empty(num, device="meta")]
        video: str = self.processor.replace_video_token({"pixel_values_videos": frames}, 0)
        return video

    def row_token(self, modality: Modality) -> int:
        token: int = self.processor.image_token_id
        return token

    def tokenise(self, text: str, asked: Asked) -> tuple[list[int], int]:
        ids, _ = super().tokenise(text, asked)
        if asked.modality is Modality.IMAGE:  # begins with a special token
            return ids, 0
        first = ids.index(self.processor.start_image_token_id)
        head = text[: text.index(self.processor.start_image_token)]
        merged, replaced = self._plain.appended(asked.text_before, head)
        return merged + ids[first:], replaced

    def encode(
        self, model: Any, modality: Modality, batch: Sequence[Prepared], device: torch.device
    ) -> list[torch.Tensor]:
        import torch

        from epd.attention.staging import put

        pixels = [item.inputs["pixel_values"] for item in batch]
        found = model.model.get_image_features(put(torch.cat(pixels), device)).pooler_output
        parts = found.split([len(one) for one in pixels])
        return [part.flatten(0, 1) for part in parts]


def _checked(settings: dict[str, Any], processor: Any) -> dict[str, Any]:
    """BadRequest for what the processor would take and then fail on, or never end with."""
    if not isinstance(settings.get("crop_to_patches", True), bool):
        raise BadRequest("crop_to_patches is true or false", param="crop_to_patches")
    least = settings.get("min_patches", processor.image_processor.min_patches)
    most = settings.get("max_patches", processor.image_processor.max_patches)
    for name, value in (("min_patches", least), ("max_patches", most)):
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MOST_TILES:
            raise BadRequest(f"{name} is a number from 1 to {_MOST_TILES}", param=name)
    if least > most:
        raise BadRequest(f"min_patches {least} is over max_patches {most}", param="min_patches")
    return settings


FAMILY = FamilySpec(
    name="internvl",
    architectures=("InternVLForConditionalGeneration",),
    adapter=InternVL,
    modalities=(Modality.IMAGE, Modality.VIDEO),
    placeholders={Modality.IMAGE: "<IMG_CONTEXT>", Modality.VIDEO: "<video>"},
    rotary="1d",
    towers={
        Modality.IMAGE: ("vision_tower", "multi_modal_projector"),
        Modality.VIDEO: ("vision_tower", "multi_modal_projector"),
    },
    processor_options={Modality.IMAGE: ("crop_to_patches", "min_patches", "max_patches")},
    embeds={Modality.IMAGE: (IMAGE_EMBEDS,), Modality.VIDEO: (VIDEO_EMBEDS,)},
)
