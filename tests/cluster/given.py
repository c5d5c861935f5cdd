"""One item of a request: the part that a client sends, and what Hugging Face is given of it.

Files are decoded here by the plainest means: Pillow, PyAV's frames in their order, soundfile, soxr.
Which frames of a video are taken is asked of Hugging Face's own video processor.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import av
import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from PIL import Image

from tests.corpus.entry import base64_text, data_url, url_part
from tests.corpus.making import film, moving, picture, scene, sound, tone
from tests.corpus.videos import frames_url
from tests.reference import Reference, Video

MOST_FRAMES = 32
"""That a server takes of one video unless it is told otherwise."""


@dataclass(frozen=True)
class Given:
    """`seen` makes the item that a family's reference takes, `sent` the client's part.

    Both are asked with the family's reference: rows that a client sends ready-made are those that
    its towers give, and sound is heard at the rate that the model wants.
    """

    kind: str
    sent: Callable[[Reference], dict[str, Any]]
    seen: Callable[[Reference], Any]


def plain(kind: str, part: dict[str, Any], seen: Callable[[Reference], Any]) -> Given:
    """An item that is sent as it is, whatever the family."""
    return Given(kind, lambda _: part, seen)


@dataclass(frozen=True)
class Request:
    """One user turn of words and items. `body` has further fields, `asked` the processor's words.

    `before` are turns before it.
    """

    content: tuple[str | Given, ...]
    body: dict[str, Any] = field(default_factory=dict)
    asked: dict[str, Any] = field(default_factory=dict)
    before: tuple[tuple[str, tuple[str | Given, ...]], ...] = ()

    @property
    def turns(self) -> tuple[tuple[str, tuple[str | Given, ...]], ...]:
        return (*self.before, ("user", self.content))

    @property
    def given(self) -> list[Given]:
        """In the order of the chat."""
        return [one for _, content in self.turns for one in content if isinstance(one, Given)]

    def items(self, reference: Reference) -> list[Any]:
        """What Hugging Face's processor is called on."""
        return [given.seen(reference) for given in self.given]

    def messages(self) -> list[dict[str, Any]]:
        """The chat in Hugging Face's form, where an item is a part without content."""
        return self._chat(lambda given: {"type": given.kind})

    def sent(self, reference: Reference) -> list[dict[str, Any]]:
        """The chat in OpenAI's form."""
        return self._chat(lambda given: given.sent(reference))

    def _chat(self, part_of: Callable[[Given], dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {
                "role": role,
                "content": [
                    {"type": "text", "text": one} if isinstance(one, str) else part_of(one)
                    for one in content
                ],
            }
            for role, content in self.turns
        ]


def image(seed: int = 0, width: int = 60, height: int = 44) -> Given:
    """A picture, every pixel of which arrives."""
    made = scene(width, height, seed)
    return plain(
        "image", url_part("image", data_url(picture("PNG", made), "image/png")), lambda _: made
    )


def audio(seconds: float = 1.3, seed: int = 0, rate: int = 16_000) -> Given:
    """A clip, every sample of which arrives where the model wants this rate."""
    samples = tone(seconds, rate, seed=seed)
    data = sound(samples, rate=rate, subtype="FLOAT")
    part = {"type": "input_audio", "input_audio": {"data": base64_text(data), "format": "wav"}}
    return plain("audio", part, partial(_heard, samples, rate))


def _heard(samples: NDArray[np.float32], rate: int, reference: Reference) -> NDArray[np.float32]:
    wanted = reference.sampling_rate
    return samples if rate == wanted else soxr.resample(samples, rate, wanted)


def video(
    seed: int = 0,
    *,
    num: int = 8,
    fps: int = 4,
    sounding: bool = False,
    listen: bool | None = None,
    num_frames: int | None = None,
    wanted_fps: float | None = None,
    size: tuple[int, int] = (64, 48),
) -> Given:
    """A file of `num` frames; `listen` is what its part says of its sound.

    `num_frames` and `wanted_fps` are what the request's body asks of it.
    """
    samples = tone(num / fps, seed=seed) if sounding else None
    data = film(moving(num, *size, seed), fps=fps, samples=samples)
    part = url_part("video", data_url(data, "video/mp4"))
    if listen is not None:
        part["use_audio_in_video"] = listen
    see = partial(watched, data, bool(listen), num_frames, wanted_fps)
    return plain("video", part, see)


def frame_list(seed: int = 0, num: int = 4) -> Given:
    """A video that comes as JPEGs; unless something is said they are a second apart."""
    files = [
        picture("JPEG", Image.fromarray(frame), quality=95) for frame in moving(num, seed=seed)
    ]
    frames = np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in files])
    seen = Video(frames, tuple(range(num)), 1.0, num)
    return plain("video", url_part("video", frames_url(*files)), lambda _: seen)


def series(steps: int = 100, channels: int = 1, seed: int = 0, kind: str = "npy") -> Given:
    """A time series, as a file of numbers or as a sound."""
    time = np.arange(steps)[:, None]
    values = np.sin(time / (3 + seed) + np.arange(channels)) / 2 + time / (4 * steps)
    values = values.astype(np.float32)
    file = io.BytesIO()
    if kind == "npy":
        np.save(file, values)
    elif kind == "csv":
        np.savetxt(file, values, delimiter=",", fmt="%.9g")
    else:
        soundfile.write(file, values, 1000, format="WAV", subtype="FLOAT")
    mime = {"npy": "application/octet-stream", "csv": "text/csv", "wav": "audio/wav"}[kind]
    part = url_part("time_series", data_url(file.getvalue(), mime))
    return plain("time_series", part, lambda _: values)


def watched(
    data: bytes,
    listen: bool,
    num_frames: int | None,
    fps: float | None,
    reference: Reference,
) -> Video:
    with av.open(io.BytesIO(data), "r") as container:
        [stream] = container.streams.video
        rate = float(stream.average_rate or 0)
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    frames = np.stack(shown).astype(np.uint8)
    indices = chosen(reference, frames, rate, num_frames, fps)
    samples = _track(data, reference) if listen else None
    return Video(frames[list(indices)], indices, rate, len(frames), samples)


def chosen(
    reference: Reference,
    frames: NDArray[np.uint8],
    rate: float,
    num_frames: int | None,
    fps: float | None,
) -> tuple[int, ...]:
    """By Hugging Face's own rule and defaults; a rate with a number means the rate, capped."""
    total = len(frames)
    from transformers.video_utils import VideoMetadata

    metadata = VideoMetadata(
        total_num_frames=total, fps=rate, duration=total / rate, frames_indices=list(range(total))
    )
    wishes: dict[str, Any] = {}
    if fps is not None:
        wishes = {"fps": fps, "do_sample_frames": True}
    elif num_frames is not None:
        # A folder's own rate, which transformers would count as a second wish, is taken back.
        wishes = {"num_frames": num_frames, "fps": None, "do_sample_frames": True}
    found = reference.processor.video_processor(
        [torch.from_numpy(frames).permute(0, 3, 1, 2)],
        video_metadata=[metadata],
        return_metadata=True,
        return_tensors="pt",
        **wishes,
    )
    indices = [int(index) for index in found["video_metadata"][0].frames_indices]
    most = min(MOST_FRAMES, num_frames or MOST_FRAMES)
    if len(indices) > most:
        indices = [indices[place] for place in spread(most, len(indices))]
    return tuple(indices)


def spread(count: int, total: int) -> list[int]:
    """`count` places, the first and the last of `total` among them."""
    return [int(place) for place in np.linspace(0, total - 1, count).round()]


def _track(data: bytes, reference: Reference) -> NDArray[np.float32] | None:
    with av.open(io.BytesIO(data), "r") as container:
        if not container.streams.audio:
            return None
        stream = container.streams.audio[0]
        samples = np.concatenate(
            [frame.to_ndarray().mean(axis=0) for frame in container.decode(stream)]
        )
        rate = stream.rate
    return _heard(np.clip(samples, -1, 1).astype(np.float32), rate, reference)


def from_file(data: bytes, reference: Reference) -> NDArray[np.float32]:
    """The samples of a sound file, one channel."""
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return _heard(samples.mean(axis=1), rate, reference)
