"""How items are to be read and processed, as the operator or a request says it.

`media_io_kwargs` choose frames of videos, `mm_processor_kwargs` settings of Hugging Face's
processor, some of which have a meaning of their own here. Every value is judged by itself; what an
item makes of it is in options.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from epd.config import MediaConfig
from epd.errors import BadRequest
from epd.gateway.urls import MOST_FRAMES
from epd.models.family import FamilySpec
from epd.types import Modality

IO, PROCESSOR = "media_io_kwargs", "mm_processor_kwargs"

MOST_COUNTED = 1_000_000  # frames that any video has
MOST_FPS = 1000
MOST_SECONDS = 1_000_000
MOST_PATCHES = 64  # that a picture is cut into
MOST_CHARACTERS = 64  # of a word

VIDEO_FIELDS = ("num_frames", "fps", "frames_indices", "total_num_frames", "duration")

GROUPS = {
    "images_kwargs": Modality.IMAGE,
    "videos_kwargs": Modality.VIDEO,
    "audio_kwargs": Modality.AUDIO,
}
"""Hugging Face's own names for settings of one modality."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What one side said; None, () and {} where it said nothing.

    `fps` has one rate for all videos, or one for each. `processor` has checked settings by
    modality.
    """

    num_frames: int | None = None
    fps: tuple[float, ...] = ()
    frames_indices: tuple[int, ...] = ()
    total_num_frames: int | None = None
    duration_s: float | None = None
    use_audio_in_video: bool | None = None
    truncation: bool | None = None
    processor: Mapping[Modality, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def describes_frames(self) -> bool:
        """Something is said that is true of lists of frames only."""
        return bool(self.frames_indices or self.total_num_frames or self.duration_s)

    def over(self, other: Wishes) -> Wishes:
        """These before others. How frames are chosen is one wish, whichever way it is said."""
        chooses = self if self.num_frames is not None or self.fps else other
        modalities = {*self.processor, *other.processor}
        return Wishes(
            num_frames=chooses.num_frames,
            fps=chooses.fps,
            frames_indices=self.frames_indices or other.frames_indices,
            total_num_frames=_first(self.total_num_frames, other.total_num_frames),
            duration_s=_first(self.duration_s, other.duration_s),
            use_audio_in_video=_first(self.use_audio_in_video, other.use_audio_in_video),
            truncation=_first(self.truncation, other.truncation),
            processor={
                modality: {**other.processor.get(modality, {}), **self.processor.get(modality, {})}
                for modality in modalities
            },
        )


def _first(ours: Any, theirs: Any) -> Any:
    return theirs if ours is None else ours


def read_wishes(
    spec: FamilySpec, media: MediaConfig, io: Mapping[str, Any], processor: Mapping[str, Any]
) -> Wishes:
    """BadRequest names the setting that is unknown to the family, or has no sense."""
    return _Reader(spec, media).read(io, processor)


class _Reader:
    def __init__(self, spec: FamilySpec, media: MediaConfig) -> None:
        self._spec = spec
        self._media = media

    def read(self, io: Mapping[str, Any], processor: Mapping[str, Any]) -> Wishes:
        said = {**self._io(io)}
        settings: dict[Modality, dict[str, Any]] = {}
        for name, value in processor.items():
            if (group := GROUPS.get(name)) is not None:
                where = f"{PROCESSOR}.{name}"
                for inner, one in _object(value, where).items():
                    self._setting(said, settings, (group,), inner, one, f"{where}.{inner[:100]}")
            else:
                where = f"{PROCESSOR}.{name[:100]}"
                self._setting(said, settings, self._spec.modalities, name, value, where)
        return Wishes(**said, processor=settings)

    def _io(self, io: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in io.items():
            where = f"{IO}.{name[:100]}"
            if name not in self._spec.modalities:
                raise _unknown(where, self._spec.modalities)
            allowed = VIDEO_FIELDS if name == Modality.VIDEO else ()
            for inner, one in _object(value, where).items():
                if inner not in allowed:
                    raise _unknown(f"{where}.{inner[:100]}", allowed)
                if one is not None:
                    key = "duration_s" if inner == "duration" else inner
                    found[key] = _of_video(inner, one, f"{where}.{inner}")
        return found

    def _setting(
        self,
        said: dict[str, Any],
        settings: dict[Modality, dict[str, Any]],
        modalities: tuple[Modality, ...],
        name: str,
        value: Any,
        where: str,
    ) -> None:
        """One setting, for all of these modalities that have it."""
        if name not in {known for modality in modalities for known in self._names(modality)}:
            names = sorted({known for m in modalities for known in self._names(m)})
            raise _unknown(where, names)
        if value is None:
            return
        if name in _OWN:
            value = _OWN[name](name, value, where)
            if said.get(name, value) != value:
                raise BadRequest(f"{where} differs from {IO}.video.{name}; give one", param=where)
            said[name] = value
            return
        for modality in modalities:
            if name in self._spec.processor_options.get(modality, ()):
                checked = self._checked(modality, name, value, where)
                settings.setdefault(modality, {})[name] = checked

    def _names(self, modality: Modality) -> tuple[str, ...]:
        """Settings that items of this modality have."""
        own: tuple[str, ...] = ()
        if modality is Modality.VIDEO:
            sound = ("use_audio_in_video",) if self._spec.sound_in_video else ()
            own = ("fps", "num_frames", *sound)
        elif modality is Modality.AUDIO:
            own = ("truncation",)
        return (*own, *self._spec.processor_options.get(modality, ()))

    def _checked(self, modality: Modality, name: str, value: Any, where: str) -> Any:
        """No value makes a processor do more work than the operator allows."""
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and len(value) <= MOST_CHARACTERS:
            return value
        if isinstance(value, int | float):
            most = self._pixels(modality, name) if "pixels" in name else MOST_PATCHES
            return _number(value, where, most)
        if isinstance(value, dict) and 0 < len(value) <= 4:
            sides = {
                side: _number(one, f"{where}.{side}", self._pixels(modality, side))
                for side, one in value.items()
            }
            most = self._pixels(modality, "height")
            if math.prod(sides.get(side, 1) for side in ("height", "width")) > most:
                raise BadRequest(f"{where}: more than {most} pixels", param=where)
            return sides
        raise BadRequest(f"{where}: not a value that can be set", param=where)

    def _pixels(self, modality: Modality, name: str) -> int:
        """The most that may be asked for; of a video, an upper bound may be of all its frames."""
        if modality is Modality.IMAGE:
            return self._media.image.asked_pixels
        if modality is not Modality.VIDEO:
            return 0
        video = self._media.video
        upper = name in ("max_pixels", "longest_edge")
        return video.asked_pixels * (video.max_frames if upper else 1)


def _number(value: Any, where: str, most: int, *, least: int = 0) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not least <= value < math.inf:
        raise BadRequest(f"{where}: must be a number of {least} at least", param=where)
    if value > most:
        raise BadRequest(f"{where}: {most} is the most that this server takes", param=where)
    return value


def _count(value: Any, where: str, *, least: int = 1) -> int:
    if not isinstance(value, int):
        raise BadRequest(f"{where}: must be a whole number", param=where)
    return int(_number(value, where, MOST_COUNTED, least=least))


def _frames(name: str, value: Any, where: str) -> int:
    return _count(value, where)


def _rates(name: str, value: Any, where: str) -> tuple[float, ...]:
    rates = value if isinstance(value, list) else [value]
    if not 0 < len(rates) <= MOST_FRAMES:
        raise BadRequest(f"{where}: must be a number or a list of some", param=where)
    found = tuple(float(_number(one, where, MOST_FPS)) for one in rates)
    if not all(found):
        raise BadRequest(f"{where}: must be more than 0", param=where)
    return found


def _switch(name: str, value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise BadRequest(f"{where}: must be true or false", param=where)
    return value


_OWN = {
    "fps": _rates,
    "num_frames": _frames,
    "truncation": _switch,
    "use_audio_in_video": _switch,
}
"""Settings of processors that are decided before any processor is called."""


def _of_video(name: str, value: Any, where: str) -> Any:
    if name == "frames_indices":
        if not isinstance(value, list) or not 0 < len(value) <= MOST_FRAMES:
            raise BadRequest(f"{where}: must be a list of frame numbers", param=where)
        indices = tuple(_count(one, where, least=0) for one in value)
        if sorted(indices) != list(indices):
            raise BadRequest(f"{where}: must ascend", param=where)
        return indices
    if name == "duration":
        seconds = float(_number(value, where, MOST_SECONDS))
        if not seconds:
            raise BadRequest(f"{where}: must be more than 0", param=where)
        return seconds
    return _rates(name, value, where) if name == "fps" else _count(value, where)


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadRequest(f"{where}: must be an object", param=where)
    return value


def _unknown(where: str, allowed: tuple[str, ...] | list[str]) -> BadRequest:
    known = f"known are {', '.join(allowed)}" if allowed else "none can be set"
    return BadRequest(f"{where}: unknown setting; {known}", param=where)
