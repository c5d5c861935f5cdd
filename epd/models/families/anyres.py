"""Pictures of any resolution: cut into tiles on a canvas of several squares, with line ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from epd.media.decoded import Tensors
from epd.models.adapter import Asked
from epd.models.families.llava_embeds import check_number, size_of
from epd.models.families.llava_style import LlavaStyle, image_side

if TYPE_CHECKING:
    import torch


class AnyResolution(LlavaStyle):
    """What LLaVA-NeXT and LLaVA-OneVision have in common.

    `inputs`: pixel_values [tiles, 3, side, side] and image_sizes [1, 2] int64, height and width.
    """

    vision_types: ClassVar[tuple[str, ...]] = ("clip_vision_model", "siglip_vision_model")

    def expected(self, processor: Any) -> dict[str, tuple[Any, Any]]:
        """The canvases decide how many tiles there are, and the tower counts them again."""
        pinpoints = self.checkpoint.config.get("image_grid_pinpoints")
        found = [list(one) for one in processor.image_processor.image_grid_pinpoints]
        wanted = found if pinpoints is None else [list(one) for one in pinpoints]
        return {**super().expected(processor), "image_grid_pinpoints": (found, wanted)}

    def embeds_text(self, tensors: Tensors, num_rows: int, asked: Asked) -> str:
        import torch

        side = image_side(self.checkpoint)
        features = {
            "pixel_values": torch.empty(1, 1, 3, side, side, device="meta"),
            "image_sizes": torch.tensor([size_of(tensors)]),
            "batch_num_images": [asked.options.siblings],
        }
        text: str = self.processor.replace_image_token(features, 0)
        check_number(num_rows, len(text) // len(self.processor.image_token), "image_embeds")
        return text


def tiles(batch: Sequence[dict[str, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """The tiles and sizes of several pictures, one behind the other."""
    import torch

    pixels = torch.cat([inputs["pixel_values"] for inputs in batch])
    return pixels, torch.cat([inputs["image_sizes"] for inputs in batch])
