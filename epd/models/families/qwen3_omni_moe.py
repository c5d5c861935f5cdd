"""Qwen3-Omni-MoE's thinker: Qwen3-VL's tower, rows that go in at many depths, and finer hearing.

A video's rows each stand right before the sound of their time. Times are fractions of a position.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from epd.models import mrope
from epd.models.families.interleaving import Order, by_time, placed
from epd.models.families.omni import EMBEDS, EOS, MODALITIES, OMNI_TOWERS, Omni
from epd.models.families.qwen3_vl import Qwen3VL
from epd.models.families.qwen_embeds import Grid
from epd.models.families.qwen_vl import OPTIONS, PLACEHOLDERS, Expansion
from epd.models.family import FamilySpec
from epd.types import Modality

if TYPE_CHECKING:
    import torch

_POSITIONS_PER_SECOND = 13.0
"""The processor's, by which it says the order of rows; the model has its own in config.json."""
_CHUNK_ROWS = 13
"""What the tower makes of a whole chunk."""


class Qwen3OmniMoe(Omni, Qwen3VL):
    """Adapter of Qwen3OmniMoeThinkerForConditionalGeneration."""

    sound_ends: ClassVar[tuple[str, str]] = ("<|audio_start|>", "<|audio_end|>")
    window: ClassVar[bool] = False

    @property
    def chunk(self) -> int:
        """Frames of a spectrogram that the tower's convolutions take at once."""
        return 2 * int(self.audio_config.get("n_window", 50))

    def num_sound_rows(self, num_frames: int) -> int:
        """Three convolutions halve each chunk, rounding up."""
        whole, rest = divmod(num_frames, self.chunk)
        for _ in range(3):
            rest = (rest + 1) // 2
        return rest + whole * _CHUNK_ROWS

    def together(self, num_frames: Sequence[int]) -> list[list[int]]:
        """A sound shorter than a chunk is padded to the longest one beside it, and hears it."""
        long = [i for i, num in enumerate(num_frames) if num >= self.chunk]
        short = [[i] for i, num in enumerate(num_frames) if num < self.chunk]
        return [long, *short] if long else short

    def hear_together(
        self, tower: Any, sounds: Sequence[torch.Tensor], device: torch.device
    ) -> torch.Tensor:
        import torch
        from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import (
            chunk_and_pad_features,
            get_audio_cu_seqlens,
            get_valid_indices,
        )

        from epd.attention.staging import put

        window = tower.n_window
        lengths = torch.tensor([sound.shape[1] for sound in sounds])
        padded, chunks = chunk_and_pad_features(torch.cat(list(sounds), 1), lengths, window)
        ends = get_audio_cu_seqlens(chunks, lengths, tower.n_window_infer, window)
        # Ends of sequences stay on the CPU, where the tower reads them layer by layer.
        found: torch.Tensor = tower(
            feature_lens=lengths,
            padded_feature=put(padded, device),
            chunk_lengths=chunks,
            valid_indices=put(get_valid_indices(chunks, window), device),
            cu_seqlens=ends,
        ).last_hidden_state
        return found

    def frame_times(self, frames: int, seconds: float) -> mrope.Positions:
        first = np.arange(frames, dtype=np.float32)
        return first * np.float32(seconds) * np.float32(self.positions_per_second)

    def expand_both(self, grid: Grid, seconds: float, num_sound: int) -> tuple[Expansion, Order]:
        frames, height, width = grid
        told = np.arange(frames) * seconds * _POSITIONS_PER_SECOND
        order = np.concatenate(by_time(told.repeat(height * width).tolist(), num_sound))
        # Two tokens stand before the rows; transformers adds them in float32, and compares then.
        before = np.float32(2)
        times = (self.frame_times(frames, seconds) + before) - before
        parts = by_time(times.repeat(height * width).tolist(), num_sound)
        places, behind = placed(parts, mrope.grid(times, height, width), num_sound)
        is_sound = (order >= frames * height * width).tolist()
        behind += 1  # the token before the rows has a position of its own
        both = self.between_ends(is_sound, places + 1, first=0, behind=behind, advance=behind + 1)
        return both, order


FAMILY = FamilySpec(
    name="qwen3_omni_moe",
    architectures=(
        "Qwen3OmniMoeThinkerForConditionalGeneration",
        "Qwen3OmniMoeForConditionalGeneration",
    ),
    adapter=Qwen3OmniMoe,
    modalities=MODALITIES,
    placeholders=PLACEHOLDERS | {Modality.AUDIO: "<|audio_pad|>"},
    rotary="mrope",
    towers=OMNI_TOWERS,
    sound_in_video=True,
    processor_options=OPTIONS,
    embeds=EMBEDS,
    inside="thinker",
    eos_token_ids=EOS,
)
