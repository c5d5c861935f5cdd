"""Files of every kind, made from arrays. Equal arguments, equal pictures and sounds."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

RATE = 16_000
"""Samples per second where nothing else is said; what the models want."""

Frames = NDArray[np.uint8]
Samples = NDArray[np.float32]


def scene(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture that no other seed gives, without sharp edges."""
    values = np.random.default_rng(seed).integers(0, 256, (height // 8 + 2, width // 8 + 2, 3))
    small = Image.fromarray(values.astype(np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def picture(kind: str = "PNG", image: Image.Image | None = None, **options: Any) -> bytes:
    """A picture as a file; `options` are Pillow's."""
    buffer = io.BytesIO()
    (scene(60, 44) if image is None else image).save(buffer, kind, **options)
    return buffer.getvalue()


def moving(num: int = 8, width: int = 64, height: int = 48, seed: int = 0) -> Frames:
    """Frames [num, height, width, 3] of one scene that passes by; all of them differ."""
    wide = np.asarray(scene(width + 4 * num, height, seed))
    return np.stack([wide[:, 4 * at : 4 * at + width] for at in range(num)])


def tone(seconds: float = 1.0, rate: int = RATE, channels: int = 1, seed: int = 0) -> Samples:
    """A rising tone with a little noise, [samples] or [samples, channels]."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).normal(0, 0.02, len(time))
    base = 0.4 * np.sin(2 * np.pi * (200 + 60 * (seed % 7) + 120 * time) * time) + noise
    if channels == 1:
        return base.astype(np.float32)
    return np.stack([base * (1 - 0.1 * channel) for channel in range(channels)], 1).astype("f4")


def sound(
    samples: Samples | None = None, kind: str = "WAV", rate: int = RATE, subtype: str | None = None
) -> bytes:
    """A sound file as soundfile writes it."""
    buffer = io.BytesIO()
    values = tone() if samples is None else samples
    soundfile.write(buffer, values, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def film(
    frames: Frames | None = None,
    *,
    kind: str = "mp4",
    codec: str = "libx264",
    fps: int | Fraction = 4,
    pixels: str = "yuv420p",
    times: Sequence[int] | None = None,
    samples: Samples | None = None,
    rate: int = RATE,
    sound_codec: str = "aac",
    layout: str = "mono",
    codec_options: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
) -> bytes:
    """A video file; `frames` of length 0 give none, `samples` a sound track.

    `times` are in 1/1000 s, one per frame; without them frames come `fps` a second.
    """
    frames = moving() if frames is None else frames
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=kind, options=dict(options or {})) as container:
        picture_stream: Any = container.add_stream(codec, rate=fps)
        picture_stream.height, picture_stream.width = frames.shape[1:3]
        picture_stream.pix_fmt = pixels
        picture_stream.options = dict(codec_options or _fast(codec))
        base = Fraction(1, 1000) if times is not None else 1 / Fraction(fps)
        picture_stream.codec_context.time_base = base
        sounds = samples is not None and _sound_stream(container, sound_codec, rate, layout)
        if not len(frames):
            container.start_encoding()
        for at, pixels_of in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels_of), format="rgb24")
            frame.pts = at if times is None else times[at]
            frame.time_base = base
            container.mux(picture_stream.encode(frame))
        container.mux(picture_stream.encode(None))
        if sounds:
            assert samples is not None
            _write_sound(container, sounds, samples, rate, layout)
    return buffer.getvalue()


def sound_film(
    samples: Samples | None = None,
    *,
    kind: str = "mp4",
    codec: str = "aac",
    rate: int = RATE,
    layout: str = "mono",
) -> bytes:
    """A video container that holds nothing but sound."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=kind) as container:
        stream = _sound_stream(container, codec, rate, layout)
        values = tone(rate=rate) if samples is None else samples
        _write_sound(container, stream, values, rate, layout)
    return buffer.getvalue()


def _fast(codec: str) -> dict[str, str]:
    """Encoders at their fastest, on one thread so that equal frames give equal files."""
    return {
        "libx264": {"preset": "ultrafast", "crf": "10", "threads": "1", "bf": "0"},
        "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:pools=1"},
        "libsvtav1": {"preset": "12", "svtav1-params": "lp=1"},
        "libvpx": {"deadline": "realtime", "cpu-used": "8", "b": "800k"},
        "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "b": "800k"},
    }.get(codec, {})


def _sound_stream(container: Any, codec: str, rate: int, layout: str) -> Any:
    stream = container.add_stream(codec, rate=rate)
    stream.layout = layout
    return stream


def _write_sound(container: Any, stream: Any, samples: Samples, rate: int, layout: str) -> None:
    planes = samples.reshape(len(samples), -1).T
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(planes), format="fltp", layout=layout)
    frame.sample_rate = rate
    frame.pts = 0
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
