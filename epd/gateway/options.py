"""What one item makes of all wishes: the operator's, the request's over them, and its own."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from epd.config import MediaConfig
from epd.errors import BadRequest, ConfigError
from epd.gateway.urls import bad
from epd.gateway.wishes import IO, PROCESSOR, Wishes, read_wishes
from epd.models.family import FamilySpec
from epd.prompt import ItemPart, Source
from epd.types import ItemForm, MediaOptions, Modality

MOST_SETTINGS = 2048
"""Characters of one item's settings as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An item before anybody has said how to read it. `sound`: its part's `use_audio_in_video`."""

    where: str
    modality: Modality
    source: Source
    sound: bool | None = None


class Options:
    """The operator's wishes, and items under them. ConfigError where they have no sense."""

    def __init__(self, spec: FamilySpec, media: MediaConfig) -> None:
        self._spec = spec
        self._media = media
        try:
            io = {modality.value: settings for modality, settings in media.io_kwargs.items()}
            self._operator = read_wishes(spec, media, io, media.processor_kwargs)
        except BadRequest as error:
            raise ConfigError(error.message) from error
        if self._operator.describes_frames:
            raise ConfigError(f"{IO}: only a request can say what its own frames are")

    def resolve(
        self,
        opened: Sequence[Opened],
        io: Mapping[str, Any] | None,
        processor: Mapping[str, Any] | None,
    ) -> list[ItemPart]:
        """Each item of a request with its options."""
        request = read_wishes(self._spec, self._media, io or {}, processor or {})
        listed = {ItemForm.FRAMES, ItemForm.EMBEDS}
        if request.describes_frames and not any(one.source.form in listed for one in opened):
            where = f"{IO}.video"
            raise BadRequest(f"{where}: the request has no list of frames", param=where)
        wishes = request.over(self._operator)
        siblings = Counter(one.modality for one in opened)
        return [
            ItemPart(
                modality=one.modality,
                source=one.source,
                options=replace(options, siblings=siblings[one.modality]),
            )
            for one, options in zip(opened, self._each(opened, wishes), strict=True)
        ]

    def _each(self, opened: Sequence[Opened], wishes: Wishes) -> Iterable[MediaOptions]:
        num_videos = sum(one.modality is Modality.VIDEO for one in opened)
        if len(wishes.fps) > 1 and len(wishes.fps) != num_videos:
            text = f"fps: {len(wishes.fps)} rates for {num_videos} videos"
            raise BadRequest(text, param=PROCESSOR)
        rates = iter(wishes.fps if len(wishes.fps) > 1 else wishes.fps * num_videos)
        for one in opened:
            processor = _canonical(wishes.processor.get(one.modality), one.where)
            if one.modality is Modality.VIDEO:
                rate = next(rates, None)
                yield replace(self._of_video(one, wishes, rate), processor=processor)
            elif one.modality is Modality.AUDIO:
                yield MediaOptions(truncation=bool(wishes.truncation), processor=processor)
            else:
                yield MediaOptions(processor=processor)

    def _of_video(self, one: Opened, wishes: Wishes, rate: float | None) -> MediaOptions:
        """A rate chooses frames of a file, and says how far apart those of a list are."""
        if one.sound and not self._spec.sound_in_video:
            raise bad(one.where, "this model does not listen to videos")
        most = self._media.video.max_frames
        num_frames = None if wishes.num_frames is None else min(wishes.num_frames, most)
        if one.source.form is ItemForm.FILE:
            sound = wishes.use_audio_in_video if one.sound is None else one.sound
            cut = bool(wishes.truncation) and bool(sound)
            return MediaOptions(
                num_frames=num_frames, fps=rate, use_audio_in_video=bool(sound), truncation=cut
            )
        if one.sound:
            raise bad(one.where, f"there is no sound in {one.source.form.value}")
        _check_frames(one, wishes)
        return MediaOptions(
            num_frames=num_frames,
            frames_indices=wishes.frames_indices,
            total_num_frames=wishes.total_num_frames,
            source_fps=rate,
            duration_s=wishes.duration_s,
        )


def _check_frames(one: Opened, wishes: Wishes) -> None:
    """What is said of a list of frames may be true."""
    indices, total = wishes.frames_indices, wishes.total_num_frames
    num = len(one.source.pieces) if one.source.form is ItemForm.FRAMES else len(indices)
    if indices and len(indices) != num:
        raise bad(one.where, f"it has {num} frames, frames_indices has {len(indices)}")
    least = max(num, indices[-1] + 1 if indices else 0)
    if total is not None and total < least:
        raise bad(one.where, f"total_num_frames is {total}, but the video has {least} at least")


def _canonical(settings: Mapping[str, Any] | None, where: str) -> str:
    if not settings:
        return ""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"), allow_nan=False)
    if len(text) > MOST_SETTINGS:
        raise bad(where, f"its {PROCESSOR} are longer than {MOST_SETTINGS} characters")
    return text
