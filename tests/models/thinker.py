"""Hugging Face's whole thinker on requests of any parts: the answer that the halves must give.

Each item goes alone through the family's full processor, the results are put side by side, and so
are the positions that the model gives each item alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from epd.media.decoded import Clip, Picture, Sound
from epd.models.torchvision_shim import prepare_torchvision
from tests.models.sounds import Part

Found = dict[str, torch.Tensor]


class Thinker:
    """Of one checkpoint, in float32 on the CPU. `architecture` is transformers' class.

    `video_size` goes before the processor's own, which goes before the checkpoint's.
    """

    def __init__(self, path: Path, architecture: str, *, video_size: bool = True) -> None:
        prepare_torchvision()
        import transformers

        self.processor: Any = transformers.AutoProcessor.from_pretrained(path)
        if hasattr(self.processor, "image_processor"):
            self.processor.image_processor = transformers.AutoImageProcessor.from_pretrained(
                path, backend="pil"
            )
        self.model: Any = (
            getattr(transformers, architecture).from_pretrained(path, dtype=torch.float32).eval()
        )
        self._tokens = self.processor.tokenizer
        self._size: dict[str, Any] = {}
        if video_size and hasattr(self.processor, "video_processor"):
            own = self.processor.video_processor.size
            edges = ("shortest_edge", "longest_edge")
            self._size = {"size": {edge: getattr(own, edge) for edge in edges}}

    def alone(self, media: Picture | Clip | Sound) -> Found:
        """The processor on a prompt of this item and nothing else."""
        asked: dict[str, Any]
        if isinstance(media, Picture):
            asked = {"images": [media.image], "text": [self.processor.image_token]}
        elif isinstance(media, Sound):
            asked = {"audio": [media.samples], "text": [self.processor.audio_token]}
        else:
            info = media.info
            rate = len(media.indices) / info.num_frames * info.fps
            videos: dict[str, Any] = {
                "do_sample_frames": False,
                "fps": rate,
                "cap_pixels_per_frame": False,
            }
            videos |= {"input_data_format": "channels_last"} | self._size
            asked = {"videos": [media.frames], "text": [self.processor.video_token]}
            asked |= {"videos_kwargs": videos}
            if media.sound is not None:
                asked |= {"audio": [media.sound.samples], "audio_from_video_indices": [0]}
                asked |= {"load_audio_from_video": True}
        return dict(self.processor(**asked, return_tensors="pt"))

    def texts(self, parts: Sequence[Part]) -> list[str]:
        """The rendered chat around its items."""
        content = [{"type": _kind(part)} | _text(part) for part in parts]
        rendered = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        tokens = (getattr(self.processor, f"{kind}_token", None) for kind in _KINDS.values())
        return re.split("|".join(re.escape(token) for token in tokens if token), rendered)

    def ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokens(text, add_special_tokens=False)["input_ids"]
        return ids

    def inputs(self, parts: Sequence[Part]) -> Found:
        """What generate() takes of a whole request, but for `use_audio_in_video`."""
        items = [self.alone(part) for part in parts if not isinstance(part, str)]
        texts = self.texts(parts)
        pieces = [self.ids(texts[0])]
        for item, text in zip(items, texts[1:], strict=True):
            pieces += [item["input_ids"][0].tolist(), self.ids(text)]
        ids = torch.tensor([[token for piece in pieces for token in piece]])
        found = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        for name in sorted({name for item in items for name in item} - found.keys()):
            found[name] = _side_by_side([item[name] for item in items if name in item])
        return found

    def positions(self, found: Found, *, sound: bool) -> torch.Tensor:
        """[3, T], by the model's own function. `sound`: all videos have one."""
        mask = found.get("feature_attention_mask")
        positions, _ = self.model.get_rope_index(
            found["input_ids"],
            found.get("image_grid_thw"),
            found.get("video_grid_thw"),
            found["attention_mask"],
            sound,
            None if mask is None else mask.sum(-1),
            found.get("video_second_per_grid"),
        )
        places: torch.Tensor = positions[:, 0]
        return places

    def composed(self, parts: Sequence[Part]) -> torch.Tensor:
        """[3, T] of a request whose videos differ: each item as it stands alone."""
        texts = self.texts(parts)
        at = 0.0
        placed = [_counted(len(self.ids(texts[0])), at)]
        at += placed[0].shape[1]
        items = [part for part in parts if not isinstance(part, str)]
        for part, text in zip(items, texts[1:], strict=True):
            inner, advance = self._between_ends(part)
            placed += [inner + at, _counted(len(self.ids(text)), at + advance)]
            at += advance + placed[-1].shape[1]
        return torch.cat(placed, dim=1)

    def _between_ends(self, part: Picture | Clip | Sound) -> tuple[torch.Tensor, float]:
        """Positions of an item's own tokens, and of the token behind it."""
        found = self.alone(part)
        ends = ("audio", "audio") if isinstance(part, Sound) else ("vision", "vision")
        start, end = (
            self._tokens.convert_tokens_to_ids(getattr(self.processor, f"{name}_{side}_token"))
            for name, side in zip(ends, ("bos", "eos"), strict=True)
        )
        ids = torch.tensor([[start, *found["input_ids"][0].tolist(), end]])
        found |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        sound = isinstance(part, Clip) and part.sound is not None
        positions = self.positions(found, sound=sound) - 1
        return positions[:, 1:-1], float(positions[0, -1])

    def interleaved(self, grid: tuple[int, int, int], seconds: float, num_sound: int) -> list[int]:
        """Ids of a video of this merged grid with its sound, by the processor's own function."""
        processor = self.processor
        merge = processor.video_processor.merge_size
        frames, height, width = grid
        video = {
            "video_grid_thw": np.array([[frames, height * merge, width * merge]]),
            "video_second_per_grid": [seconds],
        }
        text: str = processor.replace_video_with_audio_token(
            video,
            0,
            {"num_audio_tokens": [num_sound]},
            0,
            position_id_per_seconds=processor.position_id_per_seconds,
            seconds_per_chunk=processor.seconds_per_chunk,
        )
        return self.ids(text)

    def places(
        self, grid: tuple[int, int, int], seconds: float, num_frames: int, ids: Sequence[int]
    ) -> torch.Tensor:
        """[3, T + 2] of such a video between the two tokens around it. `num_frames`: its sound's
        spectrogram."""
        merge = self.processor.video_processor.merge_size
        frames, height, width = grid
        start, end = (
            self._tokens.convert_tokens_to_ids(getattr(self.processor, f"vision_{side}_token"))
            for side in ("bos", "eos")
        )
        all_ids = torch.tensor([[start, *ids, end]])
        positions, _ = self.model.get_rope_index(
            all_ids,
            None,
            torch.tensor([[frames, height * merge, width * merge]]),
            torch.ones_like(all_ids),
            True,
            torch.tensor([num_frames]),
            torch.tensor([seconds]),
        )
        places: torch.Tensor = positions[:, 0].double()
        return places

    def rows(self, found: Found, kind: str) -> torch.Tensor:
        """Of the one item of this kind in what `alone` gave, without deeper slices."""
        with torch.inference_mode():
            if kind == "audio":
                heard: torch.Tensor = self.model.get_audio_features(
                    found["input_features"], found["feature_attention_mask"]
                ).last_hidden_state
                return heard
            pixels = found["pixel_values" if kind == "image" else "pixel_values_videos"]
            seen = getattr(self.model, f"get_{kind}_features")(pixels, found[f"{kind}_grid_thw"])
        levels = [seen.pooler_output, *(getattr(seen, "deepstack_features", None) or [])]
        return torch.cat([level[0] for level in levels], dim=1)

    @torch.inference_mode()
    def generate(self, found: Found, num: int, **more: Any) -> list[int]:
        """`num` greedy tokens."""
        options = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        ids = self.model.generate(
            **found, **more, **options, max_new_tokens=num, repetition_penalty=1.0, eos_token_id=-1
        )
        new: list[int] = ids[0, found["input_ids"].shape[1] :].tolist()
        return new


_KINDS: dict[type, str] = {Picture: "image", Clip: "video", Sound: "audio"}


def _kind(part: Part) -> str:
    return "text" if isinstance(part, str) else _KINDS[type(part)]


def _text(part: Part) -> dict[str, str]:
    return {"text": part} if isinstance(part, str) else {}


def _counted(num: int, at: float) -> torch.Tensor:
    return (torch.arange(num, dtype=torch.float64) + at).expand(3, -1)


def _side_by_side(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Spectrograms and their masks are as long as the longest; all else is laid end to end."""
    length = max(tensor.shape[-1] for tensor in tensors)
    padded = [torch.nn.functional.pad(tensor, (0, length - tensor.shape[-1])) for tensor in tensors]
    return torch.cat(padded)


def has_sound(parts: Sequence[Part]) -> bool:
    """Do its videos have one?"""
    return any(isinstance(part, Clip) and part.sound is not None for part in parts)
