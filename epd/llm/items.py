"""From pictures, frames, sound and tensors in memory to the parts that requests have for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from epd.llm.arrays import as_array, npy, picture_of, png, wav, wrong
from epd.llm.embeds import embeds_parts, is_embeds
from epd.types import Modality

FRAME_FACTS = ("fps", "frames_indices", "total_num_frames", "duration")
"""What may be said of the video that frames were taken from."""

UNUSED_FACTS = ("do_sample_frames", "height", "video_backend", "width")
"""What others say of it beside that, and nothing here depends on."""

Part = dict[str, Any]


@dataclass(slots=True)
class Items:
    """The parts of one request, and what is true of its lists of frames."""

    parts: list[Part] = field(default_factory=list)
    frames: dict[str, Any] = field(default_factory=dict)
    videos: int = 0

    def add(self, kind: str, value: Any, where: str) -> None:
        """One item, or several, of a modality. BadRequest names what is no such thing."""
        if kind != Modality.TIME_SERIES and is_embeds(value):
            self.parts += embeds_parts(kind, value, where)
            return
        match kind:
            case Modality.IMAGE:
                self._pictures(value, where)
            case Modality.VIDEO:
                self._videos(value, where)
            case Modality.AUDIO:
                self._sounds(value, where)
            case Modality.TIME_SERIES:
                self._series(value, where)
            case _:
                raise wrong(where, f"is none of {', '.join(Modality)}")

    def known(self, kind: str, uuid: str) -> None:
        """An item that was sent before under this name."""
        self.parts.append({"type": f"{kind}_url", f"{kind}_url": {}, "uuid": uuid})

    def _inline(self, kind: str, media_type: str, data: str) -> None:
        name = f"{kind}_url"
        self.parts.append({"type": name, name: {"url": f"data:{media_type};base64,{data}"}})

    def _pictures(self, value: Any, where: str) -> None:
        if isinstance(value, list | tuple):
            for number, one in enumerate(value):
                self.add(Modality.IMAGE, one, f"{where}[{number}]")
            return
        self._inline(Modality.IMAGE, "image/png", png(picture_of(value, where)))

    def _videos(self, value: Any, where: str) -> None:
        stacked = as_array(value)
        if stacked is not None and stacked.ndim == 5:
            value = list(stacked)
        if _has_facts(value):
            frames, facts = value
            self._video(frames, _facts(facts, where), where)
        elif isinstance(value, list | tuple) and not (value and _is_frame(value[0])):
            for number, one in enumerate(value):
                self.add(Modality.VIDEO, one, f"{where}[{number}]")
        else:
            self._video(value, {}, where)

    def _video(self, value: Any, facts: dict[str, Any], where: str) -> None:
        frames = value if as_array(value) is None else list(value)
        if not isinstance(frames, list | tuple) or not frames:
            raise wrong(where, "is no list of frames")
        if self.videos and facts != self.frames:
            raise wrong(where, "has other facts than the video before: one request, one set")
        self.frames = facts
        self.videos += 1
        files = [
            png(picture_of(frame, f"{where}: frame {number}"))
            for number, frame in enumerate(frames)
        ]
        self._inline(Modality.VIDEO, "video/jpeg", ",".join(files))

    def _sounds(self, value: Any, where: str) -> None:
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], int | float):
            samples = as_array(value[0])
            if samples is None:
                raise wrong(where, f"has a {type(value[0]).__name__} where its samples should be")
            self._inline(Modality.AUDIO, "audio/wav", wav(samples, value[1], where))
        elif isinstance(value, list | tuple):
            for number, one in enumerate(value):
                self.add(Modality.AUDIO, one, f"{where}[{number}]")
        else:
            raise wrong(where, "must be (samples, samples per second)")

    def _series(self, value: Any, where: str) -> None:
        values = as_array(value)
        if values is not None:
            self._inline(Modality.TIME_SERIES, "application/octet-stream", npy(values, where))
        elif isinstance(value, list | tuple):
            for number, one in enumerate(value):
                self._series(one, f"{where}[{number}]")
        else:
            raise wrong(where, f"is a {type(value).__name__}, no array")


def read_items(data: Mapping[str, Any], uuids: Mapping[str, Any]) -> Items:
    """`multi_modal_data` and `multi_modal_uuids`: by modality, in the order of the prompt."""
    found = Items()
    for kind in dict.fromkeys((*data, *uuids)):
        _read_kind(found, kind, data.get(kind), uuids.get(kind))
    return found


def _read_kind(found: Items, kind: str, value: Any, uuids: Any) -> None:
    where = f"multi_modal_data.{kind}"
    names = [uuids] if uuids is None or isinstance(uuids, str) else list(uuids)
    before = len(found.parts)
    if isinstance(value, list | tuple) and any(one is None for one in value):
        values = list(value)
    else:
        values = [None] * len(names) if value is None else [value]
    for number, one in enumerate(values):
        name = names[number] if number < len(names) else None
        if one is not None:
            found.add(kind, one, where)
        elif name is None:
            raise wrong(f"{where}[{number}]", "is None, and multi_modal_uuids has no name for it")
        else:
            found.known(kind, name)
    if uuids is None:
        return
    parts = found.parts[before:]
    if len(names) != len(parts):
        raise wrong(f"multi_modal_uuids.{kind}", f"has {len(names)} names for {len(parts)} items")
    for part, name in zip(parts, names, strict=True):
        if name is not None:
            part["uuid"] = name


def _is_frame(value: Any) -> bool:
    pixels = as_array(value)
    return isinstance(value, Image.Image) or (
        pixels is not None and pixels.ndim in (2, 3) and pixels.dtype.kind != "f"
    )


def _has_facts(value: Any) -> bool:
    """(frames, facts): an object, or a dataclass such as transformers' VideoMetadata."""
    if not isinstance(value, tuple) or len(value) != 2:
        return False
    facts = value[1]
    return isinstance(facts, Mapping) or hasattr(facts, "total_num_frames")


def _facts(said: Any, where: str) -> dict[str, Any]:
    facts = dict(said if isinstance(said, Mapping) else vars(said))
    if unknown := sorted(set(facts) - {*FRAME_FACTS, *UNUSED_FACTS}):
        raise wrong(where, f"says {unknown[0]}; known are {', '.join(FRAME_FACTS)}")
    found: dict[str, Any] = {}
    for name in FRAME_FACTS:
        value = facts.get(name)
        if value is not None:
            array = as_array(value)
            found[name] = value if array is None else array.tolist()
    return found
