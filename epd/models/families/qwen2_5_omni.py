"""Qwen2.5-Omni's thinker: Qwen2.5-VL's tower, and ears that listen in short windows.

A video and its sound take turns, two seconds each. The two tokens before them share a position, as
do the two behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from epd.models import mrope
from epd.models.families.interleaving import Order, by_chunks, placed
from epd.models.families.omni import EMBEDS, EOS, MODALITIES, OMNI_TOWERS, Omni
from epd.models.families.qwen2_5_vl import Qwen25VL
from epd.models.families.qwen_embeds import Grid
from epd.models.families.qwen_vl import OPTIONS, Expansion
from epd.models.family import FamilySpec
from epd.types import Modality

if TYPE_CHECKING:
    import torch

# The processor's, by which it says the order of rows; the model has its own in config.json.
_POSITIONS_PER_SECOND = 25
_CHUNK = 50


class Qwen25Omni(Omni, Qwen25VL):
    """Adapter of Qwen2_5OmniThinkerForConditionalGeneration."""

    sound_ends: ClassVar[tuple[str, str]] = ("<|audio_bos|>", "<|audio_eos|>")
    window: ClassVar[bool] = True

    def num_sound_rows(self, num_frames: int) -> int:
        """One convolution halves, rounding up, and the pooling behind it halves, rounding down."""
        return ((num_frames - 1) // 2 + 1) // 2

    def hear_together(
        self, tower: Any, sounds: Sequence[torch.Tensor], device: torch.device
    ) -> torch.Tensor:
        import torch
        from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import (
            chunk_and_pad_features,
            get_audio_cu_seqlens,
            get_pool_indices,
            get_valid_indices,
        )

        from epd.attention.staging import put

        lengths = torch.tensor([sound.shape[1] for sound in sounds])
        padded, chunks = chunk_and_pad_features(torch.cat(list(sounds), 1), lengths, tower.n_window)
        # Ends of sequences stay on the CPU, where the tower reads them layer by layer.
        found: torch.Tensor = tower(
            feature_lens=lengths,
            padded_feature=put(padded, device),
            chunk_lengths=put(chunks, device),
            valid_indices=put(get_valid_indices(chunks), device),
            pool_indices=put(get_pool_indices(lengths), device),
            cu_seqlens=get_audio_cu_seqlens(chunks),
        ).last_hidden_state
        return found

    def frame_times(self, frames: int, seconds: float) -> mrope.Positions:
        first = np.arange(frames, dtype=np.float32)
        times = first * np.float32(seconds) * np.float32(self.positions_per_second)
        return times.astype(np.int64)

    def expand_both(self, grid: Grid, seconds: float, num_sound: int) -> tuple[Expansion, Order]:
        frames, height, width = grid
        told = np.arange(frames) * seconds * _POSITIONS_PER_SECOND
        order = np.concatenate(by_chunks(told.repeat(height * width).tolist(), num_sound, _CHUNK))
        times = self.frame_times(frames, seconds)
        chunk = int(self.positions_per_second * self.checkpoint.config.get("seconds_per_chunk", 2))
        parts = by_chunks(times.repeat(height * width).tolist(), num_sound, chunk)
        places, behind = placed(parts, mrope.grid(times, height, width), num_sound)
        is_sound = (order >= frames * height * width).tolist()
        return self.between_ends(is_sound, places, first=-1, behind=behind, advance=behind), order


FAMILY = FamilySpec(
    name="qwen2_5_omni",
    architectures=(
        "Qwen2_5OmniThinkerForConditionalGeneration",
        "Qwen2_5OmniForConditionalGeneration",
        "Qwen2_5OmniModel",
    ),
    adapter=Qwen25Omni,
    modalities=MODALITIES,
    placeholders={
        Modality.IMAGE: "<|IMAGE|>",
        Modality.VIDEO: "<|VIDEO|>",
        Modality.AUDIO: "<|AUDIO|>",
    },
    rotary="mrope",
    towers=OMNI_TOWERS,
    sound_in_video=True,
    processor_options=OPTIONS,
    embeds=EMBEDS,
    inside="thinker",
    eos_token_ids=EOS,
)
