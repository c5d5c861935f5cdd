"""What the LLaVA-style families have in common: a tower, a projector, positions that count up.

Under `model` stand vision_tower, multi_modal_projector and language_model, and lm_head beside it.
The whole Hugging Face processor is loaded: its image or video processor is called on the one item,
and its own functions say what text the item becomes.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from epd.errors import BadMedia, BadRequest, UnsupportedModel
from epd.media.decoded import Clip, Media, Picture, Tensors, VideoInfo
from epd.models.adapter import Adapter, Asked, Prepared
from epd.models.families.llava_embeds import rows_of
from epd.models.sizes import text_size
from epd.types import ItemLayout, MediaOptions, Modality

if TYPE_CHECKING:
    import torch

    from epd.models.spec import Checkpoint

MOST_ASPECT = 200
"""Longer pictures are refused: resized by their short side, or padded to a square, they are huge.
Qwen-VL's processors draw the same line."""


class LlavaStyle(Adapter):
    """A family says how its processor is called and what its tower takes."""

    batch_invariant: ClassVar[bool] = True  # attention never leaves a picture

    vision_types: ClassVar[tuple[str, ...]]
    """Towers that fit; transformers would build others too, which take other inputs."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self.hidden = text_size(checkpoint).hidden
        self.processor: Any = None
        kind = vision_config(checkpoint).get("model_type", self.vision_types[0])
        if kind not in self.vision_types:
            raise UnsupportedModel(
                f"{checkpoint.path} has a vision tower of type {kind}; supported are:"
                f" {', '.join(self.vision_types)}"
            )

    # ---- what a family adds

    def expected(self, processor: Any) -> dict[str, tuple[Any, Any]]:
        """Settings that processor and tower must share: name -> (the processor's, the tower's)."""
        return {"image size": (_tile_side(processor.image_processor), image_side(self.checkpoint))}

    @abstractmethod
    def picture(
        self, processor: Any, media: Picture, options: MediaOptions
    ) -> tuple[dict[str, torch.Tensor], str]:
        """The tower's inputs, and the text that the picture becomes. ValueError: cannot be."""

    def clip(self, processor: Any, media: Clip) -> tuple[dict[str, torch.Tensor], str]:
        """The same of a video."""
        features = processor.video_processor(
            [frames_tensor(media)],
            video_metadata=[metadata_of(media)],
            do_sample_frames=False,
            return_tensors="pt",
        )
        text = processor.replace_video_token(features, 0)
        return {"pixel_values": features["pixel_values_videos"][0]}, text

    def embeds_text(self, tensors: Tensors, num_rows: int, asked: Asked) -> str:
        """The text that ready-made rows become. BadRequest when they cannot be so many."""
        raise BadRequest(f"this model takes no ready-made {asked.modality.value} embeddings")

    def tokenise(self, text: str, asked: Asked) -> tuple[list[int], int]:
        """Ids of an item's text, and how many ids left of the item they replace."""
        ids: list[int] = self.processor.tokenizer.backend_tokenizer.encode(
            text, add_special_tokens=False
        ).ids
        return ids, 0

    # ---- towers

    def tower_parts(self, modalities: Sequence[Modality]) -> tuple[str, ...]:
        return ("model.vision_tower", "model.multi_modal_projector")

    def load_processors(self, modalities: Sequence[Modality]) -> dict[Modality, Any]:
        from transformers import AutoImageProcessor, AutoProcessor

        from epd.models.torchvision_shim import prepare_torchvision

        prepare_torchvision()
        folder = self.checkpoint.path
        trust = self.checkpoint.trust_remote_code
        processor = AutoProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=trust
        )
        # Backends differ by up to 0.015 per value, so one is pinned.
        processor.image_processor = AutoImageProcessor.from_pretrained(
            folder, local_files_only=True, backend="pil", trust_remote_code=trust
        )
        for name, (found, wanted) in self.expected(processor).items():
            if found != wanted:
                raise UnsupportedModel(
                    f"{folder}: {name} of the processor is {found}, of the tower {wanted}"
                )
        self.processor = processor
        return dict.fromkeys(modalities, processor)

    def sample_frames(
        self, processors: Mapping[Modality, Any], info: VideoInfo, options: MediaOptions
    ) -> list[int]:
        from transformers.video_utils import VideoMetadata

        video = processors[Modality.VIDEO].video_processor
        wanted, fps = options.num_frames, options.fps
        if wanted is None and fps is None and video.do_sample_frames:
            wanted, fps = video.num_frames, video.fps
        if wanted is None and fps is None:
            return list(range(info.num_frames))
        if fps is not None:  # a number beside it is a ceiling, and the caller's business
            wanted = int(info.num_frames / info.fps * fps)
        assert wanted is not None
        num = min(max(wanted, 1), info.num_frames)
        metadata = VideoMetadata(total_num_frames=info.num_frames, fps=info.fps)
        found: list[int] = video.sample_frames(metadata, num_frames=num).tolist()
        return found[:num]

    def prepare(self, processors: Mapping[Modality, Any], media: Media, asked: Asked) -> Prepared:
        import torch

        processor = processors[asked.modality]
        try:
            if isinstance(media, Clip):
                features, text = self.clip(processor, media)
            else:
                assert isinstance(media, Picture)
                _check_aspect(media)
                features, text = self.picture(processor, media, asked.options)
        except (ValueError, ZeroDivisionError) as error:
            raise BadMedia(f"the {asked.modality.value} cannot be processed: {error}") from error
        dtype = getattr(torch, asked.dtype)
        inputs = {n: t.to(dtype) if t.is_floating_point() else t for n, t in features.items()}
        return Prepared(
            layout=self._layout(text, asked),
            inputs=inputs,
            patches=self._patches(features["pixel_values"]),
        )

    def from_embeds(self, tensors: Tensors, asked: Asked) -> Prepared:
        import torch

        rows = rows_of(tensors, f"{asked.modality.value}_embeds", width=self.hidden)
        text = self.embeds_text(tensors, len(rows), asked)
        return Prepared(
            layout=self._layout(text, asked),
            inputs={},
            patches=0,
            rows=torch.tensor(rows, dtype=getattr(torch, asked.dtype)),
        )

    # ---- layouts

    def row_token(self, modality: Modality) -> int:
        """The id of each token that takes a row."""
        token: int = getattr(self.processor, f"{modality.value}_token_id")
        return token

    def _layout(self, text: str, asked: Asked) -> ItemLayout:
        ids, replaced = self.tokenise(text, asked)
        return ItemLayout(
            modality=asked.modality,
            token_ids=tuple(ids),
            row_spans=_spans(ids, self.row_token(asked.modality)),
            width=self.hidden,
            dtype=asked.dtype,
            content_key=asked.content_key,
            replaces_left=replaced,
        )

    def _patches(self, pixels: torch.Tensor) -> int:
        """Of the tower's square patches, in all tiles or frames [..., channels, height, width]."""
        side = patch_side(self.checkpoint)
        return pixels.shape[:-3].numel() * (pixels.shape[-1] // side) ** 2


def vision_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The tower's part of config.json."""
    return checkpoint.config.get("vision_config") or {}


def patch_side(checkpoint: Checkpoint) -> int:
    """Pixels along a patch of the tower."""
    return _side(vision_config(checkpoint).get("patch_size", 14))


def image_side(checkpoint: Checkpoint) -> int:
    """Pixels along the square that the tower takes."""
    return _side(vision_config(checkpoint).get("image_size", 336))


def frames_tensor(media: Clip) -> torch.Tensor:
    """As Hugging Face's video processors take them: uint8 [frames, 3, height, width]."""
    import torch

    frames = np.require(media.frames, requirements="W")  # torch wants no read-only memory
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


def metadata_of(media: Clip) -> Any:
    """What the container said, in transformers' words."""
    from transformers.video_utils import VideoMetadata

    info = media.info
    return VideoMetadata(
        total_num_frames=info.num_frames,
        fps=info.fps,
        duration=info.duration_s,
        width=info.width,
        height=info.height,
        frames_indices=list(media.indices),
    )


def settings_of(options: MediaOptions) -> dict[str, Any]:
    """What the client chose of the processor's settings."""
    found: dict[str, Any] = json.loads(options.processor) if options.processor else {}
    return found


def _side(size: Any) -> int:
    """Written as a number or as height and width, which are equal."""
    return int(size[0] if isinstance(size, list | tuple) else size)


def _tile_side(images: Any) -> int:
    """Pixels along the squares that the image processor makes."""
    size = images.crop_size if images.do_center_crop else images.size
    return int(size.height or size.shortest_edge)


def _check_aspect(media: Picture) -> None:
    width, height = media.image.size
    if max(width, height) > MOST_ASPECT * min(width, height):
        raise BadMedia(f"the picture's aspect ratio is over {MOST_ASPECT}: {width} x {height}")


def _spans(ids: Sequence[int], token: int) -> tuple[tuple[int, int], ...]:
    """Half-open ranges of the ids that are this token."""
    marks = np.concatenate([[0], np.asarray(ids) == token, [0]]).astype(np.int8)
    edges = np.flatnonzero(np.diff(marks)).tolist()
    return tuple(zip(edges[::2], edges[1::2], strict=True))
