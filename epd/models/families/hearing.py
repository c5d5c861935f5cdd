"""What families that hear have in common: Whisper's feature extractor, and rows sent ready-made.

It turns samples into a log-mel spectrogram, one frame per `hop_length` samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from epd.errors import BadMedia, BadRequest, InternalError
from epd.media.decoded import Sound, Tensors
from epd.models.families.qwen_embeds import rows_of
from epd.models.family import EmbedsField
from epd.types import MediaOptions

if TYPE_CHECKING:
    import torch

    from epd.models.spec import Checkpoint

NAME = "audio_embeds"
AUDIO_EMBEDS = (EmbedsField(name=NAME, shape="[rows, hidden]"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A spectrogram, float32 [mel bins, frames]; the first `num_frames` are of the sound."""

    frames: torch.Tensor
    num_frames: int


def load_extractor(checkpoint: Checkpoint) -> Any:
    """The checkpoint's feature extractor."""
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor.from_pretrained(checkpoint.path, local_files_only=True)


def hear(extractor: Any, sound: Sound, options: MediaOptions, *, window: bool) -> Heard:
    """The spectrogram of one sound alone. BadMedia when there is nothing in it, or too much.

    `window`: the model listens to the extractor's window, no more and no less. Hugging Face cuts
    what is longer and says nothing.
    """
    num, rate = len(sound.samples), extractor.sampling_rate
    if sound.rate != rate:
        raise InternalError(f"encode: sound of {sound.rate} samples a second, not {rate}")
    if num == 0:
        raise BadMedia("the sound is empty")
    if window and num > extractor.n_samples and not options.truncation:
        raise BadMedia(
            f"the sound is {num / rate:.1f} s long; this model listens to"
            f" {extractor.n_samples / rate:g} s, and cuts the rest only with truncation: true"
        )
    if not window and num <= extractor.n_fft // 2:  # the edges are mirrored
        raise BadMedia(f"the sound is too short: {num} samples")
    found = extractor(
        [sound.samples],
        sampling_rate=rate,
        padding="max_length" if window else "longest",
        truncation=window,
        return_attention_mask=True,
        return_tensors="pt",
    )
    return Heard(frames=found["input_features"][0], num_frames=int(found["attention_mask"].sum()))


def ready_rows(tensors: Tensors, *, hidden: int, dtype: str) -> torch.Tensor:
    """A sound's rows as the client sent them, [rows, hidden]. BadRequest names what is wrong."""
    import torch

    sent = tensors.get(NAME)
    if sent is None:
        raise BadRequest(f"{NAME} is missing", param=NAME)
    if sent.ndim != 2 or sent.shape[1] != hidden or not len(sent):
        reason = f"has the shape {list(sent.shape)}; this model takes [rows, {hidden}]"
        raise BadRequest(f"{NAME} {reason}", param=NAME)
    rows = rows_of(tensors, NAME, num=len(sent), width=hidden)
    return torch.tensor(rows, dtype=getattr(torch, dtype))
