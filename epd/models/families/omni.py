"""What the thinkers of the Qwen-Omni models have in common.

They see as Qwen-VL does, with the tower `model.visual`, and hear with `model.audio_tower`, which
takes a spectrogram as long as the sound, [mel bins, frames]. A sound's rows count up as text does.
A video may bring its sound along: one item, both kinds of rows in the order of time between
`audio_bos` and `audio_eos`.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from epd.errors import BadMedia, InternalError
from epd.media.decoded import Clip, Media, Sound, Tensors
from epd.models import mrope
from epd.models.adapter import Asked, Prepared
from epd.models.families.hearing import AUDIO_EMBEDS, Heard, hear, load_extractor, ready_rows
from epd.models.families.interleaving import Order
from epd.models.families.qwen_embeds import IMAGE_EMBEDS, VIDEO_EMBEDS, Grid, seconds_of
from epd.models.families.qwen_vl import GRID, TOWERS, Expansion, QwenVL
from epd.models.family import EmbedsField
from epd.types import ItemLayout, Modality

if TYPE_CHECKING:
    import torch

    from epd.models.spec import Checkpoint

MODALITIES = (Modality.IMAGE, Modality.VIDEO, Modality.AUDIO)
SECONDS = "video_second_per_grid"
EMBEDS = {
    Modality.IMAGE: IMAGE_EMBEDS,
    Modality.VIDEO: (*VIDEO_EMBEDS, EmbedsField(name=SECONDS, shape="[1]")),
    Modality.AUDIO: AUDIO_EMBEDS,
}
OMNI_TOWERS = {**TOWERS, Modality.AUDIO: ("audio_tower",)}
EOS = (151_645,)

_DEFAULT_IDS = {Modality.IMAGE: 151_655, Modality.VIDEO: 151_656, Modality.AUDIO: 151_646}


class Omni(QwenVL):
    """A family says how its sound tower is fed, and how sound and frames are interleaved."""

    sound_ends: ClassVar[tuple[str, str]]
    """The tokens around the rows of a video with sound."""

    window: ClassVar[bool]
    """Is there a longest sound?"""

    frame_tokens: ClassVar[tuple[int, int]] = (128, 768)
    """Least and most tokens of a frame where the checkpoint says nothing of videos."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        config = checkpoint.config
        for modality, default in _DEFAULT_IDS.items():
            name = f"{modality.value}_token"
            found = config.get(f"{name}_id", config.get(f"{name}_index", default))
            self.token_ids[modality] = int(found)
        self.positions_per_second = float(config.get("position_id_per_seconds", 25))
        self.audio_config: dict[str, Any] = config.get("audio_config") or {}

    # ---- what a family adds

    @abstractmethod
    def num_sound_rows(self, num_frames: int) -> int:
        """What the tower makes of so many frames of a spectrogram."""

    @abstractmethod
    def hear_together(
        self, tower: Any, sounds: Sequence[torch.Tensor], device: torch.device
    ) -> torch.Tensor:
        """Rows of all these sounds, end to end. Each is [mel bins, frames], on the CPU."""

    @abstractmethod
    def frame_times(self, frames: int, seconds: float) -> mrope.Positions:
        """Positions in time of a video's frames, computed as get_rope_index does."""

    @abstractmethod
    def expand_both(self, grid: Grid, seconds: float, num_sound: int) -> tuple[Expansion, Order]:
        """A video with sound, and the order of its rows."""

    def together(self, num_frames: Sequence[int]) -> list[list[int]]:
        """Which sounds of these lengths may be in the tower at once: their places in the list."""
        return [list(range(len(num_frames)))]

    # ---- towers

    def tower_parts(self, modalities: Sequence[Modality]) -> tuple[str, ...]:
        towers = {
            Modality.IMAGE: "model.visual",
            Modality.VIDEO: "model.visual",
            Modality.AUDIO: "model.audio_tower",
        }
        return tuple(dict.fromkeys(towers[modality] for modality in modalities))

    def load_processors(self, modalities: Sequence[Modality]) -> dict[Modality, Any]:
        found = super().load_processors([m for m in modalities if m is not Modality.AUDIO])
        if Modality.AUDIO in modalities:
            found[Modality.AUDIO] = load_extractor(self.checkpoint)
        return found

    def _video_processor(self) -> Any:
        from transformers import Qwen2VLVideoProcessor
        from transformers.image_utils import SizeDict

        processor = self._uncapped(Qwen2VLVideoProcessor)
        if not self._says_how_videos_are_read():
            # Published folders have one file of settings, meant for pictures.
            token = (processor.patch_size * processor.merge_size) ** 2
            least, most = self.frame_tokens
            processor.size = SizeDict(shortest_edge=least * token, longest_edge=most * token)
        return processor

    def _says_how_videos_are_read(self) -> bool:
        path = self.checkpoint.path
        if (path / "video_preprocessor_config.json").is_file():
            return True
        file = path / "processor_config.json"
        return file.is_file() and "video_processor" in json.loads(file.read_bytes())

    def sampling_rate(self, processors: Mapping[Modality, Any]) -> int:
        return int(processors[Modality.AUDIO].sampling_rate)

    def prepare(self, processors: Mapping[Modality, Any], media: Media, asked: Asked) -> Prepared:
        if isinstance(media, Sound):
            return self._prepare_sound(self._hear(processors, media, asked), asked)
        prepared = super().prepare(processors, media, asked)
        sound = media.sound if isinstance(media, Clip) else None
        if sound is None or not len(sound.samples) or not asked.options.use_audio_in_video:
            return prepared
        assert isinstance(media, Clip)
        return self._with_sound(prepared, media, self._hear(processors, sound, asked), asked)

    def _hear(self, processors: Mapping[Modality, Any], sound: Sound, asked: Asked) -> Heard:
        if Modality.AUDIO not in processors:
            raise InternalError("encode: a video with sound came to a worker that cannot hear")
        heard = hear(processors[Modality.AUDIO], sound, asked.options, window=self.window)
        if self.num_sound_rows(heard.num_frames) < 1:
            raise BadMedia(f"the sound is too short: {len(sound.samples)} samples")
        return heard

    def _prepare_sound(self, heard: Heard, asked: Asked) -> Prepared:
        num_rows = self.num_sound_rows(heard.num_frames)
        return Prepared(
            layout=self._sound_layout(num_rows, asked),
            inputs={"input_features": _features(heard, asked)},
            patches=num_rows,
        )

    def _sound_layout(self, num_rows: int, asked: Asked) -> ItemLayout:
        return ItemLayout(
            modality=asked.modality,
            token_ids=(self.token_ids[Modality.AUDIO],) * num_rows,
            row_spans=((0, num_rows),),
            width=self.width,
            dtype=asked.dtype,
            content_key=asked.content_key,
            advance=num_rows,
        )

    def _with_sound(self, prepared: Prepared, clip: Clip, heard: Heard, asked: Asked) -> Prepared:
        import torch

        grid = self._merged(prepared.inputs[GRID[Modality.VIDEO]][0].tolist())
        num_sound = self.num_sound_rows(heard.num_frames)
        expansion, order = self.expand_both(grid, self.seconds_of_clip(clip)[0], num_sound)
        inputs = {
            "input_features": _features(heard, asked),
            "order": torch.from_numpy(order),
        }
        return replace(
            prepared,
            layout=self._layout(expansion, asked),
            inputs=prepared.inputs | inputs,
            patches=prepared.patches + num_sound,
        )

    def between_ends(
        self,
        is_sound: Sequence[bool],
        places: mrope.Positions,
        *,
        first: int,
        behind: float,
        advance: float,
    ) -> Expansion:
        """Rows at `places`, the token before them at `first`, the one after them at `behind`.

        Text goes on at `advance`.
        """
        start, end = self._end_ids
        seen, heard = self.token_ids[Modality.VIDEO], self.token_ids[Modality.AUDIO]
        ends = np.full((3, 1), first), np.full((3, 1), behind)
        return Expansion(
            token_ids=(start, *(heard if sound else seen for sound in is_sound), end),
            row_spans=((1, 1 + len(is_sound)),),
            places=np.concatenate([ends[0], places, ends[1]], axis=1),
            advance=advance,
        )

    @cached_property
    def _end_ids(self) -> tuple[int, int]:
        from transformers import PreTrainedTokenizerFast

        tokenizer = PreTrainedTokenizerFast.from_pretrained(
            self.checkpoint.path, local_files_only=True
        )
        start, end = tokenizer.convert_tokens_to_ids(list(self.sound_ends))
        return start, end

    # ---- the video alone

    def filled(self, clip: Clip) -> Clip:
        return clip  # the processor repeats the last frame itself

    def seconds_of_clip(self, clip: Clip) -> list[float]:
        """From one frame of rows to the next, were the frames evenly spread over the video."""
        frames_per_second = len(clip.indices) / clip.info.num_frames * clip.info.fps
        return [self.temporal_patch_size / frames_per_second]

    def seconds_of_embeds(self, tensors: Tensors, grid: Grid) -> list[float]:
        return seconds_of(tensors, SECONDS, num=1)

    def expand_clip(self, grid: Grid, seconds: Sequence[float], asked: Asked) -> Expansion:
        """Text goes on behind the last frame's time, or its longer side."""
        frames, height, width = grid
        places = mrope.grid(self.frame_times(frames, seconds[0]), height, width)
        return self._only_rows(asked.modality, places, float(places.max()) + 1)

    # ---- ready-made, and the towers

    def from_embeds(self, tensors: Tensors, asked: Asked) -> Prepared:
        if asked.modality is not Modality.AUDIO:
            return super().from_embeds(tensors, asked)
        rows = self._widened(ready_rows(tensors, hidden=self.hidden, dtype=asked.dtype))
        layout = self._sound_layout(len(rows), asked)
        return Prepared(layout=layout, inputs={}, patches=0, rows=rows)

    def encode(
        self, model: Any, modality: Modality, batch: Sequence[Prepared], device: torch.device
    ) -> list[torch.Tensor]:
        import torch

        from epd.attention.staging import put

        if modality is Modality.AUDIO:
            return self._sound_rows(model, batch, device)
        rows = super().encode(model, modality, batch, device)
        loud = [i for i, item in enumerate(batch) if "order" in item.inputs]
        sounds = self._sound_rows(model, [batch[i] for i in loud], device)
        for i, heard in zip(loud, sounds, strict=True):
            order = put(batch[i].inputs["order"], device)
            rows[i] = torch.cat([rows[i], heard]).index_select(0, order)
        return rows

    def _sound_rows(
        self, model: Any, items: Sequence[Prepared], device: torch.device
    ) -> list[torch.Tensor]:
        import torch

        sounds = [item.inputs["input_features"] for item in items]
        lengths = [sound.shape[1] for sound in sounds]
        rows: dict[int, torch.Tensor] = {}
        for group in self.together(lengths) if sounds else []:
            found = self.hear_together(model.model.audio_tower, [sounds[i] for i in group], device)
            sizes = [self.num_sound_rows(lengths[i]) for i in group]
            rows |= zip(group, torch.split(self._widened(found), sizes), strict=True)
        return [rows[i] for i in range(len(items))]

    def _widened(self, rows: torch.Tensor) -> torch.Tensor:
        """Nothing of a sound goes into deeper layers."""
        from torch.nn.functional import pad

        return pad(rows, (0, self.width - self.hidden))


def _features(heard: Heard, asked: Asked) -> torch.Tensor:
    """[mel bins, frames] without what pads them."""
    import torch

    return heard.frames[:, : heard.num_frames].to(getattr(torch, asked.dtype))
