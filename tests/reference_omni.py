"""What an Omni model's batch call would do otherwise than with every item alone.

Rows of sounds: together they are padded to the longest before the tower's convolutions, which
moves the rows of clips shorter than a second. So the tower is called on one after the other.

Positions: the flag that a video brings its sound is one for the whole request, and with it a
silent clip loses all positions. So they are composed: what the model's own function gives for an
item alone between its two markers, moved to where the text before it ends. Where one call can
express the request, the two must agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

Piece = tuple[torch.Tensor, tuple[dict[str, Any], bool] | None]
"""Ids of text, or of an item with its tensors and whether it is a video with its sound."""


class Omni:
    """Changes a thinker so that it treats every item of a request as if it were the only one."""

    def __init__(self, model: Any, processor: Any) -> None:
        self._model = model
        self._markers = processor.tokenizer.convert_tokens_to_ids(
            [processor.vision_bos_token, processor.vision_eos_token]
        )
        self._features = model.model.get_audio_features
        model.model.get_audio_features = self._each_alone

    def _each_alone(
        self, input_features: Any, feature_attention_mask: Any, *_: Any, **kwargs: Any
    ) -> Any:
        kwargs.pop("audio_feature_lengths", None)
        found = [
            self._features(features[None], mask[None], **kwargs)
            for features, mask in zip(input_features, feature_attention_mask, strict=True)
        ]
        found[0].last_hidden_state = torch.cat([one.last_hidden_state for one in found])
        return found[0]

    @contextmanager
    def positions(self, pieces: Sequence[Piece], whole: dict[str, torch.Tensor]) -> Iterator[None]:
        """Inside, the model takes positions composed of `pieces`; `whole` is all its input."""
        composed = self.compose(pieces)
        sounds = {item[1] for _, item in pieces if item and "video_grid_thw" in item[0]}
        if len(sounds) < 2:
            own = self._of(whole["input_ids"], whole, True in sounds)
            assert torch.equal(own, composed), "the model's own positions are others"
        delta = composed.max() + 1 - composed.shape[-1]
        self._model.get_rope_index = lambda *_, **__: (composed, delta.reshape(1, 1).long())
        try:
            yield
        finally:
            del self._model.get_rope_index

    def compose(self, pieces: Sequence[Piece]) -> torch.Tensor:
        """[3, 1, tokens]."""
        found = []
        start: Any = 0
        for ids, item in pieces:
            if item is None or "input_features" in item[0] and "video_grid_thw" not in item[0]:
                places, advance = torch.arange(len(ids)).expand(3, -1), len(ids)
            else:
                places, advance = self._item(ids, *item)
            found.append(places + start)
            start = start + advance
        return torch.cat(found, dim=1)[:, None]

    def _item(self, ids: torch.Tensor, tensors: dict[str, Any], sounds: bool) -> tuple[Any, Any]:
        """Relative to where the item starts, and how much further the text after it goes on."""
        start, end = self._markers
        between = [start, *ids.tolist(), end]
        found = self._of(torch.tensor([between]), tensors, sounds)[:, 0] - 1
        return found[:, 1:-1], found[0, -1]

    def _of(self, ids: torch.Tensor, tensors: dict[str, Any], sounds: bool) -> torch.Tensor:
        """The model's own function."""
        mask = tensors.get("feature_attention_mask")
        found, _ = type(self._model).get_rope_index(
            self._model,
            ids,
            image_grid_thw=tensors.get("image_grid_thw"),
            video_grid_thw=tensors.get("video_grid_thw"),
            attention_mask=torch.ones_like(ids),
            use_audio_in_video=sounds,
            audio_seqlens=None if mask is None else mask.sum(-1),
            second_per_grids=tensors.get("video_second_per_grid"),
        )
        positions: torch.Tensor = found
        return positions
