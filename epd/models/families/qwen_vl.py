"""What the Qwen-VL families have in common: pictures and videos, their processors and places.

One tower, `model.visual`, with its mergers inside, for both. A processor gives pixel_values
[patches, 3 * 2 * patch_size ** 2] float32 and a grid [1, 3] int64 of frames, height and width in
patches; the tower gives one row per merge_size ** 2 patches. A picture is one frame, a video one
per temporal_patch_size pictures.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from epd.errors import BadMedia, BadRequest, UnsupportedModel
from epd.media.decoded import Clip, Media, Picture, Tensors, VideoInfo
from epd.models import mrope
from epd.models.adapter import Adapter, Asked, Prepared
from epd.models.families.qwen_clips import checked, process_clip, sample_frames
from epd.models.families.qwen_embeds import Grid, grid_of, rows_of
from epd.models.families.qwen_pixels import PICTURE_OPTIONS, VIDEO_OPTIONS, settings
from epd.types import ItemLayout, MediaOptions, Modality

if TYPE_CHECKING:
    import torch

    from epd.models.spec import Checkpoint

PIXELS = {Modality.IMAGE: "pixel_values", Modality.VIDEO: "pixel_values_videos"}
GRID = {Modality.IMAGE: "image_grid_thw", Modality.VIDEO: "video_grid_thw"}

PLACEHOLDERS = {Modality.IMAGE: "<|image_pad|>", Modality.VIDEO: "<|video_pad|>"}
TOWERS = {Modality.IMAGE: ("visual",), Modality.VIDEO: ("visual",)}
OPTIONS = {Modality.IMAGE: PICTURE_OPTIONS, Modality.VIDEO: VIDEO_OPTIONS}

LONGEST_S = 1e6
"""Seconds; no video's time is beyond it. So positions in time stay far below 2 ** 31."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expansion:
    """What a grid of rows becomes in the prompt; the fields are those of ItemLayout."""

    token_ids: tuple[int, ...]
    row_spans: tuple[tuple[int, int], ...]
    places: mrope.Positions
    advance: float
    replaces_left: int = 0


class QwenVL(Adapter):
    """A family says what else its tower takes, what comes out, and how a video is told in time."""

    batch_invariant: ClassVar[bool] = True  # attention never leaves a frame
    pictures_anywhere: ClassVar[bool] = True

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
        self.temporal_patch_size = int(self.patches["temporal_patch_size"])
        self.hidden = int(vision.get("out_hidden_size", 3584))
        config = checkpoint.config
        self.token_ids = {
            Modality.IMAGE: int(config.get("image_token_id", 151655)),
            Modality.VIDEO: int(config.get("video_token_id", 151656)),
        }

    @property
    def vision_config(self) -> dict[str, Any]:
        """The tower's part of config.json."""
        return self.checkpoint.config.get("vision_config") or {}

    @property
    def width(self) -> int:
        """Values per row."""
        return self.hidden * (1 + self.deepstack_levels)

    # ---- what a family adds

    @abstractmethod
    def tower_inputs(self, visual: Any, grid: torch.Tensor, device: torch.device) -> dict[str, Any]:
        """What the tower takes beside pixels, grid and positions.

        `grid` is on the CPU, where all this is computed; what indexes activations is moved.
        """

    @abstractmethod
    def rows(self, features: Any) -> list[torch.Tensor]:
        """Rows of each item out of what get_image_features or get_video_features returned."""

    @abstractmethod
    def seconds_of_clip(self, clip: Clip) -> list[float]:
        """What the prompt or the positions say of the clip's time."""

    @abstractmethod
    def seconds_of_embeds(self, tensors: Tensors, grid: Grid) -> list[float]:
        """The same, from what the client sent. BadRequest names a field that is wrong."""

    def expand_clip(self, grid: Grid, seconds: Sequence[float], asked: Asked) -> Expansion:
        """A video's tokens: nothing but its rows, unless a family says otherwise.

        Text goes on behind the longer side of a frame, however many frames there are.
        """
        frames, height, width = grid
        places = mrope.grid(range(frames), height, width)
        return self._only_rows(asked.modality, places, max(height, width))

    # ---- towers

    def tower_parts(self, modalities: Sequence[Modality]) -> tuple[str, ...]:
        return ("model.visual",)

    def load_processors(self, modalities: Sequence[Modality]) -> dict[Modality, Any]:
        from epd.models.torchvision_shim import prepare_torchvision

        prepare_torchvision()
        load = {Modality.IMAGE: self._picture_processor, Modality.VIDEO: self._video_processor}
        found = {modality: load[modality]() for modality in modalities}
        for processor in found.values():
            for name, wanted in self.patches.items():
                if (value := getattr(processor, name)) != wanted:
                    raise UnsupportedModel(
                        f"{self.checkpoint.path}: {name} of the processor is {value},"
                        f" of the tower {wanted}"
                    )
        return found

    def _picture_processor(self) -> Any:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
            Qwen2VLImageProcessorPil,
        )

        # A backend by name: they differ by up to 0.015 per value, so none is found by itself.
        if self.pictures_on is not None:
            from transformers import Qwen2VLImageProcessor

            return Qwen2VLImageProcessor.from_pretrained(
                self.checkpoint.path, local_files_only=True
            )
        return Qwen2VLImageProcessorPil.from_pretrained(self.checkpoint.path, local_files_only=True)

    def _video_processor(self) -> Any:
        from transformers import Qwen2VLVideoProcessor

        return self._uncapped(Qwen2VLVideoProcessor)

    def _uncapped(self, processor_class: Any) -> Any:
        """Where a checkpoint is silent, transformers caps nothing, and warns of it."""
        processor = processor_class.from_pretrained(self.checkpoint.path, local_files_only=True)
        if processor.cap_pixels_per_frame is None:
            processor.cap_pixels_per_frame = False
        return processor

    def sample_frames(
        self, processors: Mapping[Modality, Any], info: VideoInfo, options: MediaOptions
    ) -> list[int]:
        video = processors[Modality.VIDEO]
        return sample_frames(video, info, options, least=self.temporal_patch_size)

    def prepare(self, processors: Mapping[Modality, Any], media: Media, asked: Asked) -> Prepared:
        import torch

        processor = processors[asked.modality]
        chosen = settings(asked.options.processor, OPTIONS[asked.modality], processor)
        if self.pictures_on is not None:
            chosen["device"] = self.pictures_on
        try:
            if isinstance(media, Picture):
                features = processor(images=[media.image], return_tensors="pt", **chosen)
            else:
                assert isinstance(media, Clip)
                media = self.filled(checked(media))
                features = process_clip(processor, media, chosen)
        except (ValueError, ArithmeticError) as error:
            kind = "picture" if isinstance(media, Picture) else "video"
            raise BadMedia(f"the {kind} cannot be processed: {error}") from error
        pixels, thw = features[PIXELS[asked.modality]], features[GRID[asked.modality]]
        grid = self._merged(thw[0].tolist())
        if isinstance(media, Picture):
            expansion = self._expand_picture(grid)
        else:
            expansion = self._expand_clip(grid, self.seconds_of_clip(media), asked)
        return Prepared(
            layout=self._layout(expansion, asked),
            inputs={
                PIXELS[asked.modality]: pixels.to(getattr(torch, asked.dtype)),
                GRID[asked.modality]: thw,
            },
            patches=len(pixels),
        )

    def filled(self, clip: Clip) -> Clip:
        """With enough frames for the processor."""
        return clip

    def from_embeds(self, tensors: Tensors, asked: Asked) -> Prepared:
        import torch

        name = asked.modality.value
        grid = self._merged(grid_of(tensors, GRID[asked.modality], merge_size=self.merge_size))
        rows = rows_of(tensors, f"{name}_embeds", num=math.prod(grid), width=self.width)
        if asked.modality is Modality.IMAGE:
            if grid[0] != 1:
                raise BadRequest("image_grid_thw: a picture is one frame", param="image_grid_thw")
            expansion = self._expand_picture(grid)
        else:
            expansion = self._expand_clip(grid, self.seconds_of_embeds(tensors, grid), asked)
        return Prepared(
            layout=self._layout(expansion, asked),
            inputs={},
            patches=0,
            rows=torch.tensor(rows, dtype=getattr(torch, asked.dtype)),
        )

    def _merged(self, patches: Sequence[int]) -> Grid:
        frames, height, width = patches
        return frames, height // self.merge_size, width // self.merge_size

    def _expand_clip(self, grid: Grid, seconds: Sequence[float], asked: Asked) -> Expansion:
        if max(seconds, default=0) > LONGEST_S:
            raise BadRequest("the video's frames are too far apart in time")
        return self.expand_clip(grid, seconds, asked)

    def _expand_picture(self, grid: Grid) -> Expansion:
        _, height, width = grid
        return self._only_rows(
            Modality.IMAGE, mrope.grid(1, height, width), advance=max(height, width)
        )

    def _only_rows(self, modality: Modality, places: mrope.Positions, advance: float) -> Expansion:
        num = places.shape[1]
        return Expansion(
            token_ids=(self.token_ids[modality],) * num,
            row_spans=((0, num),),
            places=places,
            advance=advance,
        )

    def _layout(self, expansion: Expansion, asked: Asked) -> ItemLayout:
        positions, _ = mrope.pack(expansion.places)
        return ItemLayout(
            modality=asked.modality,
            token_ids=expansion.token_ids,
            row_spans=expansion.row_spans,
            width=self.width,
            dtype=asked.dtype,
            content_key=asked.content_key,
            positions=positions,
            advance=expansion.advance,
            replaces_left=expansion.replaces_left,
        )

    def encode(
        self, model: Any, modality: Modality, batch: Sequence[Prepared], device: torch.device
    ) -> list[torch.Tensor]:
        import torch
        from transformers.vision_utils import get_vision_position_ids

        from epd.attention.staging import put

        visual, name = model.model.visual, modality.value
        pixels = torch.cat([item.inputs[PIXELS[modality]] for item in batch])
        # The grid stays on the CPU, where the tower reads sequence lengths from it layer by layer
        # without waiting for the device; what indexes activations is computed here and moved once.
        grid = torch.cat([item.inputs[GRID[modality]] for item in batch])
        positions = get_vision_position_ids(grid, visual.spatial_merge_size)
        computed = {
            "position_ids": put(positions, device),
            **self.tower_inputs(visual, grid, device),
        }
        features = getattr(model.model, f"get_{name}_features")(
            put(pixels, device), grid, **{f"{name}_{key}": value for key, value in computed.items()}
        )
        return self.rows(features)
