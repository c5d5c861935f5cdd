"""Hugging Face's whole Qwen-VL model on requests of any parts: what the halves must answer.

Each item goes alone through the family's full processor, and the results are put side by side.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import copy
from typing import Any

import torch

from epd.media.decoded import Clip, Picture
from tests.models.clips import Part
from tests.reference import Reference

Found = dict[str, torch.Tensor]


class Whole:
    """Of one checkpoint, in float32 on the CPU."""

    def __init__(self, reference: Reference) -> None:
        self.model: Any = reference.model
        self.processor: Any = copy(reference.processor)
        self.processor.image_processor = reference.images
        self._render = reference.render

    def alone(self, media: Picture | Clip, **settings: Any) -> Found:
        """The processor on a prompt of this item and nothing else."""
        from transformers.video_utils import VideoMetadata

        if isinstance(media, Picture):
            asked: dict[str, Any] = {"images": [media.image], "text": [self.processor.image_token]}
        else:
            asked = {"videos": [media.frames], "text": [self.processor.video_token]}
            metadata = VideoMetadata(
                total_num_frames=media.info.num_frames,
                fps=media.info.fps,
                frames_indices=list(media.indices),
            )
            asked |= {"video_metadata": [metadata], "do_sample_frames": False}
            asked |= {"input_data_format": "channels_last"}
        return dict(self.processor(**asked, **settings, return_tensors="pt"))

    def texts(self, parts: Sequence[Part]) -> list[str]:
        """The rendered chat around its items."""
        content = [{"type": _kind(part)} | _text(part) for part in parts]
        rendered = self._render([{"role": "user", "content": content}])
        tokens = (self.processor.image_token, self.processor.video_token)
        return re.split("|".join(map(re.escape, tokens)), rendered)

    def inputs(self, parts: Sequence[Part]) -> Found:
        """What generate() takes of a whole request."""
        items = [self.alone(doubled(part)) for part in parts if not isinstance(part, str)]
        texts = self.texts(parts)
        pieces = [self.ids(texts[0])]
        for item, text in zip(items, texts[1:], strict=True):
            pieces += [item["input_ids"][0].tolist(), self.ids(text)]
        ids = torch.tensor([[token for piece in pieces for token in piece]])
        kinds = self.processor.create_mm_token_type_ids(ids.tolist())
        found = {"input_ids": ids, "mm_token_type_ids": torch.tensor(kinds, dtype=torch.int32)}
        for name in sorted({name for item in items for name in item}):
            if name not in ("input_ids", "attention_mask", "mm_token_type_ids"):
                found[name] = torch.cat([item[name] for item in items if name in item])
        return found

    def ids(self, text: str) -> list[int]:
        ids: list[int] = self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def positions(self, found: Found) -> tuple[torch.Tensor, int]:
        """[3, T] by the model's own function, and how far behind its index the next token stands.

        generate() counts on from the last position; the function's own delta, from the highest
        one, is what it would do with a cache that it did not fill itself.
        """
        names = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")
        facts = {name: found[name] for name in names if name in found}
        positions, _ = self.model.model.get_rope_index(
            found["input_ids"], found["mm_token_type_ids"], **facts
        )
        return positions[:, 0], int(positions[0, 0, -1]) + 1 - positions.shape[2]

    def rows(self, found: Found, name: str) -> torch.Tensor:
        """Of the one `name` ("image" or "video") in what `alone` gave."""
        pixels = found["pixel_values" if name == "image" else "pixel_values_videos"]
        with torch.inference_mode():
            features = getattr(self.model, f"get_{name}_features")(
                pixels, found[f"{name}_grid_thw"]
            )
        levels = [features.pooler_output, *getattr(features, "deepstack_features", [])]
        return torch.cat([level[0] for level in levels], dim=1)

    @torch.inference_mode()
    def generate(self, found: Found, num: int) -> list[int]:
        """`num` greedy tokens."""
        options = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        ids = self.model.generate(
            **found, **options, min_new_tokens=num, max_new_tokens=num, repetition_penalty=1.0
        )
        new: list[int] = ids[0, found["input_ids"].shape[1] :].tolist()
        return new


def doubled(part: Picture | Clip) -> Picture | Clip:
    """One frame alone stands twice, as the last of any odd number does: Qwen3-VL's processor
    refuses it else, and the others do just that."""
    if isinstance(part, Picture) or len(part.frames) > 1:
        return part
    return Clip(frames=part.frames.repeat(2, 0), indices=part.indices * 2, info=part.info)


def _kind(part: Part) -> str:
    if isinstance(part, str):
        return "text"
    return "image" if isinstance(part, Picture) else "video"


def _text(part: Part) -> dict[str, str]:
    return {"text": part} if isinstance(part, str) else {}
