"""LLaVA-OneVision: a picture alone in its conversation has tiles, one among several has not.

A video has a quarter of the rows per frame, and one line end behind its last frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from epd.errors import BadMedia
from epd.media.decoded import Picture, Tensors
from epd.models.adapter import Asked, Prepared
from epd.models.families.anyres import AnyResolution, tiles
from epd.models.families.llava_embeds import IMAGE_EMBEDS, IMAGE_SIZES, VIDEO_EMBEDS, wrong
from epd.models.families.llava_style import image_side, patch_side
from epd.models.family import FamilySpec
from epd.types import MediaOptions, Modality

if TYPE_CHECKING:
    import torch

_MOST_SQUARE = 10_000
"""Pixels along the square that a picture among several is padded to."""


class LlavaOnevision(AnyResolution):
    """Adapter of LlavaOnevisionForConditionalGeneration.

    Videos: `inputs` has pixel_values [frames, 3, side, side].
    """

    vision_types: ClassVar[tuple[str, ...]] = ("siglip_vision_model", "clip_vision_model")

    def expected(self, processor: Any) -> dict[str, tuple[Any, Any]]:
        config = self.checkpoint.config
        patches = image_side(self.checkpoint) // patch_side(self.checkpoint)
        strategy = config.get("vision_feature_select_strategy", "full")
        return {
            **super().expected(processor),
            "num_image_tokens": (processor.num_image_tokens, patches**2),
            "vision_feature_select_strategy": (processor.vision_feature_select_strategy, strategy),
            "vision_aspect_ratio": (
                processor.vision_aspect_ratio,
                config.get("vision_aspect_ratio", "anyres_max_9"),
            ),
        }

    def picture(
        self, processor: Any, media: Picture, options: MediaOptions
    ) -> tuple[dict[str, torch.Tensor], str]:
        from transformers.image_processing_backends import PilBackend

        if options.siblings > 1 and (side := max(media.image.size)) > _MOST_SQUARE:
            raise BadMedia(
                f"the picture is {side} pixels long; among several, {_MOST_SQUARE} are read"
            )
        # The processor's own takes whole conversations and calls this, with how many each has.
        features = PilBackend.preprocess(
            processor.image_processor, [media.image], [options.siblings], return_tensors="pt"
        )
        inputs = {
            "pixel_values": features["pixel_values"][0],
            "image_sizes": features["image_sizes"],
        }
        return inputs, processor.replace_image_token(features, 0)

    def embeds_text(self, tensors: Tensors, num_rows: int, asked: Asked) -> str:
        if asked.modality is Modality.IMAGE:
            return super().embeds_text(tensors, num_rows, asked)
        frames, rest = divmod(num_rows - 1, self.rows_per_frame)
        if rest or not frames:
            needed = f"{self.rows_per_frame} for each frame and one more"
            raise wrong("video_embeds", f"has {num_rows} rows where there are {needed}")
        text: str = self.processor.video_token * num_rows
        return text

    @property
    def rows_per_frame(self) -> int:
        """Pooling halves both sides, rounded up."""
        patches = image_side(self.checkpoint) // patch_side(self.checkpoint)
        return math.ceil(patches / 2) ** 2

    def encode(
        self, model: Any, modality: Modality, batch: Sequence[Prepared], device: torch.device
    ) -> list[torch.Tensor]:
        from epd.attention.staging import put

        if modality is Modality.VIDEO:
            return self._encode_videos(model.model, batch, device)
        rows: dict[int, torch.Tensor] = {}
        alone = [i for i, item in enumerate(batch) if len(item.inputs["pixel_values"]) > 1]
        among = [i for i, item in enumerate(batch) if len(item.inputs["pixel_values"]) == 1]
        for group, num_images in ((alone, None), (among, [max(2, len(among))])):
            if group:
                pixels, sizes = tiles([batch[i].inputs for i in group])
                found = model.model.get_image_features(
                    put(pixels, device), sizes, batch_num_images=num_images
                )
                rows |= dict(zip(group, found.pooler_output, strict=True))
        return [rows[i] for i in range(len(batch))]

    def _encode_videos(
        self, model: Any, batch: Sequence[Prepared], device: torch.device
    ) -> list[torch.Tensor]:
        """All of them as one long video, cut again; nothing of a frame depends on others."""
        import torch

        from epd.attention.staging import put

        pixels = [item.inputs["pixel_values"] for item in batch]
        (found,) = model.get_video_features(put(torch.cat(pixels)[None], device)).pooler_output
        frames, line_end = found[:-1], found[-1:]
        parts = frames.split([len(one) * self.rows_per_frame for one in pixels])
        return [torch.cat([part, line_end]) for part in parts]


FAMILY = FamilySpec(
    name="llava_onevision",
    architectures=("LlavaOnevisionForConditionalGeneration",),
    adapter=LlavaOnevision,
    modalities=(Modality.IMAGE, Modality.VIDEO),
    placeholders={Modality.IMAGE: "<image>", Modality.VIDEO: "<video>"},
    rotary="1d",
    towers={
        Modality.IMAGE: ("vision_tower", "multi_modal_projector", "image_newline"),
        Modality.VIDEO: ("vision_tower", "multi_modal_projector", "image_newline"),
    },
    embeds={
        Modality.IMAGE: (IMAGE_EMBEDS, IMAGE_SIZES),
        Modality.VIDEO: (VIDEO_EMBEDS,),
    },
)
