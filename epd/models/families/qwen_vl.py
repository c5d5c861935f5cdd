"""What the Qwen-VL families have in common: pictures, their processor, their places in a prompt.

One tower, `model.visual`, with its mergers inside. The image processor gives pixel_values
[patches, 3 * 2 * patch_size ** 2] float32 and image_grid_thw [1, 3] int64; the tower gives one row
per merge_size ** 2 patches. A picture becomes that many image tokens and nothing else.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from epd.errors import BadMedia, UnsupportedModel
from epd.media.decoded import Media, Picture
from epd.models import mrope
from epd.models.adapter import Adapter, Asked, Prepared
from epd.types import ItemLayout, Modality

if TYPE_CHECKING:
    import torch

    from epd.models.spec import Checkpoint


class QwenVL(Adapter):
    """A family says what else its tower takes, and what becomes of the tower's output."""

    batch_invariant: ClassVar[bool] = True  # attention never leaves a picture

    default_patch_size: ClassVar[int]

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        vision = self.vision_config
        self.patches = {
            "patch_size": vision.get("patch_size", self.default_patch_size),
            "temporal_patch_size": vision.get("temporal_patch_size", 2),
            "merge_size": vision.get("spatial_merge_size", 2),
        }
        self.merge_size = int(self.patches["merge_size"])
        self.hidden = int(vision.get("out_hidden_size", 3584))
        self.image_token_id = int(checkpoint.config.get("image_token_id", 151655))

    @property
    def vision_config(self) -> dict[str, Any]:
        """The tower's part of config.json."""
        return self.checkpoint.config.get("vision_config") or {}

    @abstractmethod
    def tower_inputs(self, visual: Any, grid: torch.Tensor, device: torch.device) -> dict[str, Any]:
        """What get_image_features takes beside pixels, grid and positions.

        `grid` is on the CPU, where all this is computed; what indexes activations is moved.
        """

    @abstractmethod
    def rows(self, features: Any) -> list[torch.Tensor]:
        """Rows of each picture out of what get_image_features returned."""

    def tower_parts(self, modalities: Sequence[Modality]) -> tuple[str, ...]:
        return ("model.visual",)

    def load_processors(self, modalities: Sequence[Modality]) -> dict[Modality, Any]:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
            Qwen2VLImageProcessorPil,
        )

        # The PIL backend by name: backends differ by up to 0.015 per value, so one is pinned.
        image = Qwen2VLImageProcessorPil.from_pretrained(
            self.checkpoint.path, local_files_only=True
        )
        for name, wanted in self.patches.items():
            if (found := getattr(image, name)) != wanted:
                raise UnsupportedModel(
                    f"{self.checkpoint.path}: {name} of the processor is {found},"
                    f" of the tower {wanted}"
                )
        return {Modality.IMAGE: image}

    def prepare(self, processors: Mapping[Modality, Any], media: Media, asked: Asked) -> Prepared:
        import torch

        assert isinstance(media, Picture)
        try:
            features = processors[asked.modality](images=[media.image], return_tensors="pt")
        except (ValueError, ZeroDivisionError) as error:
            raise BadMedia(f"the picture cannot be processed: {error}") from error
        frames, height, width = features["image_grid_thw"][0].tolist()
        places = mrope.grid(frames, height // self.merge_size, width // self.merge_size)
        positions, advance = mrope.pack(places)
        num_rows = places.shape[1]
        layout = ItemLayout(
            modality=asked.modality,
            token_ids=(self.image_token_id,) * num_rows,
            row_spans=((0, num_rows),),
            width=self.hidden * (1 + self.deepstack_levels),
            dtype=asked.dtype,
            content_key=asked.content_key,
            positions=positions,
            advance=advance,
        )
        pixels = features["pixel_values"].to(getattr(torch, asked.dtype))
        inputs = {"pixel_values": pixels, "image_grid_thw": features["image_grid_thw"]}
        return Prepared(layout=layout, inputs=inputs, patches=frames * height * width)

    def encode(
        self, model: Any, modality: Modality, batch: Sequence[Prepared], device: torch.device
    ) -> list[torch.Tensor]:
        import torch
        from transformers.vision_utils import get_vision_position_ids

        visual = model.model.visual
        pixels = torch.cat([item.inputs["pixel_values"] for item in batch])
        # The grid stays on the CPU, where the tower reads sequence lengths from it layer by layer
        # without waiting for the device; what indexes activations is computed here and moved once.
        grid = torch.cat([item.inputs["image_grid_thw"] for item in batch])
        found = model.model.get_image_features(
            pixels.to(device),
            grid,
            image_position_ids=get_vision_position_ids(grid, visual.spatial_merge_size).to(device),
            **self.tower_inputs(visual, grid, device),
        )
        return self.rows(found)

    def language_parts(self) -> tuple[str, ...]:
        return ("model.language_model", "lm_head")

    def decoder(self, model: Any) -> Any:
        return model.model.language_model

    def head(self, model: Any) -> Any:
        return model.lm_head
