"""Chats for the LLaVA-style families, and Hugging Face's whole answer to them.

The whole processor gets the whole chat here: template, items, text. Only InternVL cannot take two
videos of different lengths in one call; there the items go in one by one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from epd.media.decoded import Clip, Media, Picture, VideoInfo
from epd.models.torchvision_shim import prepare_torchvision
from epd.types import Modality
from tests.models.pictures import picture

Part = str | Media


def clip(num_frames: int, width: int = 90, height: int = 70, seed: int = 0) -> Clip:
    """Frames that differ, half of those of a file."""
    frames = np.stack(
        [np.asarray(picture(width, height, seed=seed + i)) for i in range(num_frames)]
    )
    info = VideoInfo(
        num_frames=2 * num_frames, fps=4.0, duration_s=num_frames / 2, width=width, height=height
    )
    return Clip(frames=frames, indices=tuple(range(0, 2 * num_frames, 2)), info=info)


def modality(part: Media) -> Modality:
    return Modality.IMAGE if isinstance(part, Picture) else Modality.VIDEO


def picture_part(width: int, height: int, seed: int = 0) -> Picture:
    return Picture(image=picture(width, height, seed=seed))


@dataclass(frozen=True)
class Chat:
    """A rendered chat: ids between the items, and the text that each item stands behind."""

    text: list[list[int]]
    before: list[str]
    items: list[Media]


class Whole:
    """One checkpoint in transformers, in fp32, on the PIL backend."""

    def __init__(self, path: Path) -> None:
        prepare_torchvision()
        import transformers

        transformers.utils.logging.disable_progress_bar()
        self.processor: Any = transformers.AutoProcessor.from_pretrained(path)
        self.processor.image_processor = transformers.AutoImageProcessor.from_pretrained(
            path, backend="pil"
        )
        self.model: Any = transformers.AutoModelForImageTextToText.from_pretrained(
            path, dtype=torch.float32
        ).eval()
        self.placeholders = {
            getattr(self.processor, f"{kind.value}_token"): kind
            for kind in (Modality.IMAGE, Modality.VIDEO)
            if hasattr(self.processor, f"{kind.value}_token")
        }

    def render(self, parts: Sequence[Part]) -> str:
        """One user turn of text and items."""
        content = [
            {"type": "text", "text": part}
            if isinstance(part, str)
            else {"type": modality(part).value}
            for part in parts
        ]
        rendered: str = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        return rendered

    def chat(self, parts: Sequence[Part]) -> Chat:
        """As a gateway sees it: one placeholder per item, bound to items of its modality."""
        rendered = self.render(parts)
        tokenizer = self.processor.tokenizer
        placeholder_ids = {
            tokenizer.convert_tokens_to_ids(t): k for t, k in self.placeholders.items()
        }
        queues = {
            kind: [part for part in parts if not isinstance(part, str) and modality(part) is kind]
            for kind in self.placeholders.values()
        }
        text: list[list[int]] = [[]]
        items: list[Media] = []
        for token in tokenizer(rendered).input_ids:
            if (kind := placeholder_ids.get(token)) is None:
                text[-1].append(token)
            else:
                items.append(queues[kind].pop(0))
                text.append([])
        added = tokenizer.added_tokens_decoder.values()
        specials = sorted((t.content for t in added if t.special), key=len, reverse=True)
        pieces = re.split(f"({'|'.join(map(re.escape, specials))})", rendered)
        before = [pieces[i - 1] for i, piece in enumerate(pieces) if piece in self.placeholders]
        return Chat(text, before, items)

    def inputs(self, parts: Sequence[Part]) -> dict[str, Any]:
        """What `generate` of the whole model takes."""
        images = [part.image for part in parts if isinstance(part, Picture)]
        videos = [part for part in parts if isinstance(part, Clip)]
        rendered = self.render(parts)
        if len({len(video.frames) for video in videos}) > 1:
            return self._one_by_one(rendered, self.chat(parts).items)
        return self._call(rendered, images, videos)

    def _call(
        self, text: str, images: Sequence[Image.Image], videos: Sequence[Clip]
    ) -> dict[str, Any]:
        media: dict[str, Any] = {}
        if images:
            media["images"] = [list(images)]  # of one conversation
        if videos:
            media["videos"] = [
                torch.from_numpy(video.frames).permute(0, 3, 1, 2) for video in videos
            ]
            media["videos_kwargs"] = {"do_sample_frames": False}
        return dict(self.processor(text=[text], return_tensors="pt", **media))

    @torch.inference_mode()
    def _one_by_one(self, rendered: str, items: Sequence[Media]) -> dict[str, Any]:
        """Each item's own call; InternVL's model takes all pixels, LLaVA-OneVision's all rows."""
        calls = []
        text, *rest = re.split("|".join(map(re.escape, self.placeholders)), rendered)
        for item, after in zip(items, rest, strict=True):
            image = [item.image] if isinstance(item, Picture) else []
            video = [item] if isinstance(item, Clip) else []
            token = next(t for t, kind in self.placeholders.items() if kind is modality(item))
            calls.append(self._call(token, image, video))
            text += self.processor.decode(calls[-1]["input_ids"][0]) + after
        ids = self.processor.tokenizer(text, return_tensors="pt")
        if "pixel_values" in calls[0]:
            return {**ids, "pixel_values": torch.cat([call["pixel_values"] for call in calls])}
        features = [self.model.get_video_features(call["pixel_values_videos"]) for call in calls]
        rows = torch.cat([feature.pooler_output[0] for feature in features])
        features[0].pooler_output = rows[None]
        return {**ids, "mm_encoder_outputs": {"video": features[0]}}

    @torch.inference_mode()
    def answer(self, inputs: dict[str, Any], num: int) -> list[int]:
        """`num` greedy tokens."""
        made = self.model.generate(
            **inputs, max_new_tokens=num, do_sample=False, eos_token_id=-1, pad_token_id=0
        )
        new: list[int] = made[0, inputs["input_ids"].shape[1] :].tolist()
        return new
