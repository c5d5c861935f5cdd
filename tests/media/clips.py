"""Videos and sounds made by code: what is in each frame and sample is known."""

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

STEP = 8
"""From one frame's shade to the next one's."""


def shaded(index: int, width: int, height: int) -> NDArray[np.uint8]:
    """A frame that tells its number: its left half, above a darker quarter, is STEP * index."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[:, : width // 2] = STEP * index % 256
    frame[: height // 2, width // 2 :] = 255
    return frame


def number_of(frame: NDArray[np.uint8]) -> int:
    """The number of an upright frame."""
    return round(float(frame[:, : frame.shape[1] // 4].mean()) / STEP)


def video(
    num_frames: int = 30,
    *,
    codec: str = "libx264",
    container: str = "mp4",
    size: tuple[int, int] = (64, 48),
    rate: int = 10,
    rotation: int = 0,
    options: Mapping[str, str] | None = None,
    times: Sequence[int] | None = None,
    sound_s: float | None = None,
) -> bytes:
    """`times` in milliseconds, evenly at `rate` unless given; `sound_s` seconds of a tone."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.options = dict(options or {})
        if rotation:
            stream.set_display_rotation(rotation)
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        sound = None if sound_s is None else _sound_stream(output)
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(shaded(index, *size), "rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[index], Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
        if sound is not None and sound_s is not None:
            _encode_sound(output, sound, tone(sound_s, 44_100)[:, None])
    return file.getvalue()


def tone(seconds: float, rate: int, hertz: float = 440.0) -> NDArray[np.float32]:
    """A sine of half the full amplitude."""
    time = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def sound_file(samples: NDArray[Any], rate: int, kind: str, subtype: str | None = None) -> bytes:
    """By soundfile: WAV, FLAC, OGG, MP3, AIFF."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def encoded_sound(
    samples: NDArray[np.float32], *, container: str, codec: str, rate: int = 44_100
) -> bytes:
    """By PyAV; samples [samples, channels] at 44.1 kHz."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        layout = {1: "mono", 2: "stereo", 6: "5.1"}[samples.shape[1]]
        stream = _sound_stream(output, codec=codec, rate=rate, layout=layout)
        _encode_sound(output, stream, samples)
    return file.getvalue()


def _sound_stream(
    output: Any, *, codec: str = "aac", rate: int = 44_100, layout: str = "mono"
) -> Any:
    return output.add_stream(codec, rate=rate, layout=layout)


def _encode_sound(output: Any, stream: Any, samples: NDArray[np.float32]) -> None:
    context = stream.codec_context
    resampler = av.AudioResampler(
        format=context.format,
        layout=context.layout,
        rate=context.sample_rate,
        frame_size=context.frame_size or None,
    )
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), "fltp", context.layout.name)
    frame.sample_rate, frame.pts = 44_100, 0
    for converted in [*resampler.resample(frame), *resampler.resample(None)]:
        output.mux(stream.encode(converted))
    output.mux(stream.encode())


def picture_file(width: int, height: int, shade: int = 7, kind: str = "PNG") -> bytes:
    """Of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), (shade, 0, 0)).save(file, kind)
    return file.getvalue()
