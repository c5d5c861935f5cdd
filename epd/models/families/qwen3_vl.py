"""Qwen3-VL, the dense models: a tower with learned positions, and rows that go in at many depths.

Some of the tower's layers have a merger of their own. Its output is added to the hidden states
after the language model's first layers, one level per layer. A row is the embedding followed by
one slice per level: [hidden * (1 + levels)].

A video becomes its frames one after the other, each behind the text of its time and between
`<|vision_start|>` and `<|vision_end|>`; each frame has positions like a picture's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from epd.media.decoded import Clip, Tensors
from epd.models import mrope
from epd.models.adapter import Asked
from epd.models.families.qwen_embeds import IMAGE_EMBEDS, VIDEO_EMBEDS, Grid, seconds_of
from epd.models.families.qwen_vl import OPTIONS, PLACEHOLDERS, TOWERS, Expansion, QwenVL
from epd.models.family import EmbedsField, FamilySpec
from epd.types import Modality

if TYPE_CHECKING:
    import torch

    from epd.models.spec import Checkpoint

TIMES = "timestamps"
EMBEDS = {
    Modality.IMAGE: IMAGE_EMBEDS,
    Modality.VIDEO: (*VIDEO_EMBEDS, EmbedsField(name=TIMES, shape="[frames]")),
}


class Qwen3VL(QwenVL):
    """Adapter of Qwen3VLForConditionalGeneration."""

    default_patch_size: ClassVar[int] = 16

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self.deepstack_levels = len(self.vision_config.get("deepstack_visual_indexes", (8, 16, 24)))

    def _video_processor(self) -> Any:
        from transformers import Qwen3VLVideoProcessor

        return self._uncapped(Qwen3VLVideoProcessor)

    def tower_inputs(self, visual: Any, grid: torch.Tensor, device: torch.device) -> dict[str, Any]:
        from transformers.vision_utils import get_vision_interpolation_indices_and_weights

        from epd.attention.staging import put

        indices, weights = get_vision_interpolation_indices_and_weights(
            grid,
            num_grid_per_side=visual.num_grid_per_side,
            mode=visual.interpolation_mode,
            align_corners=visual.interpolation_align_corners,
            spatial_merge_size=visual.spatial_merge_size,
        )
        return {"interp_indices": put(indices, device), "interp_weights": put(weights, device)}

    def rows(self, features: Any) -> list[torch.Tensor]:
        import torch

        levels = (features.pooler_output, *features.deepstack_features)
        return [torch.cat(slices, dim=1) for slices in zip(*levels, strict=True)]

    def filled(self, clip: Clip) -> Clip:
        """The processor repeats the last frame of an odd number, but does not take one alone."""
        missing = self.temporal_patch_size - len(clip.frames)
        if missing <= 0:
            return clip
        last = np.repeat(clip.frames[-1:], missing, axis=0)
        return replace(
            clip,
            frames=np.concatenate([clip.frames, last]),
            indices=clip.indices + clip.indices[-1:] * missing,
        )

    def seconds_of_clip(self, clip: Clip) -> list[float]:
        """Of each frame of rows: the middle between its first and its last picture."""
        size = self.temporal_patch_size
        times = [index / clip.info.fps for index in clip.indices]
        times += times[-1:] * (-len(times) % size)
        return [(times[i] + times[i + size - 1]) / 2 for i in range(0, len(times), size)]

    def seconds_of_embeds(self, tensors: Tensors, grid: Grid) -> list[float]:
        return seconds_of(tensors, TIMES, num=grid[0])

    def expand_clip(self, grid: Grid, seconds: Sequence[float], asked: Asked) -> Expansion:
        _, height, width = grid
        before = self._ids(asked.text_before)
        ids: list[int] = []
        spans: list[tuple[int, int]] = []
        places: list[mrope.Positions] = []
        kept = 0
        for number, second in enumerate(seconds):
            text = f"<{second:.1f} seconds><|vision_start|>"
            # The first time may merge with the prompt's text before it; a special token ends it.
            words = self._ids(text if number else asked.text_before + text)
            kept = kept if number else _equal_beginning(before, words)
            words = words if number else words[kept:]
            start = len(ids) + len(words)
            spans.append((start, start + height * width))
            ids += [*words, *[self.token_ids[asked.modality]] * (height * width), *self._end]
            places += [
                mrope.text(len(words)),
                mrope.grid(1, height, width),
                mrope.text(len(self._end)),
            ]
        positions = mrope.behind(places)
        return Expansion(
            token_ids=tuple(ids),
            row_spans=tuple(spans),
            places=positions,
            advance=int(positions.max()) + 1,
            replaces_left=len(before) - kept,
        )

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import PreTrainedTokenizerFast

        found = PreTrainedTokenizerFast.from_pretrained(self.checkpoint.path, local_files_only=True)
        return found.backend_tokenizer

    @cached_property
    def _end(self) -> list[int]:
        return self._ids("<|vision_end|>")

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def _equal_beginning(one: Sequence[int], other: Sequence[int]) -> int:
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


FAMILY = FamilySpec(
    name="qwen3_vl",
    architectures=("Qwen3VLForConditionalGeneration",),
    adapter=Qwen3VL,
    modalities=(Modality.IMAGE, Modality.VIDEO),
    placeholders=PLACEHOLDERS,
    rotary="mrope",
    towers=TOWERS,
    processor_options=OPTIONS,
    embeds=EMBEDS,
)
