"""Sound: from an audio file, or a video's sound track, to one channel of samples at a given rate.

soundfile reads what it can (WAV, FLAC, OGG, MP3, AIFF), PyAV the rest (M4A, AAC, WebM, MKV, AVI).
Channels are averaged; soxr resamples, block by block, so a long file is never in memory whole at
its own rate. The length is judged from the header, and again while samples come.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import av
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from epd.config import MediaConfig
from epd.config.media import AudioLimits
from epd.errors import BadMedia, TooLarge
from epd.media.containers import is_sound_codec, opened, sound_format, video_format
from epd.media.decoded import Sound
from epd.media.io import MediaIO
from epd.media.versions import decoding
from epd.types import ItemForm, MediaOptions, Modality

LOWEST_RATE, HIGHEST_RATE = 8_000, 192_000
MOST_CHANNELS = 8
_BLOCK = 1 << 17
_SOUNDFILE_FORMATS = frozenset({"wav", "flac", "ogg", "mp3", "aiff"})
_SOUNDFILE_CODECS = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW", "VORBIS", "OPUS", "MPEG_LAYER_III")
_NAMES = "not a readable WAV, FLAC, OGG, MP3, AIFF, M4A, AAC, WEBM, MKV or AVI file"

Samples = NDArray[np.float32]


class AudioIO(MediaIO[Sound]):
    """Audio files. Given no `rate`, the sound keeps its own."""

    modality = Modality.AUDIO

    def __init__(
        self,
        config: MediaConfig | None = None,
        options: MediaOptions | None = None,
        *,
        rate: int | None = None,
    ) -> None:
        super().__init__(config, options)
        self._rate = rate

    @property
    def decoding(self) -> str:
        return decoding(self.modality, ItemForm.FILE, self.config)

    def load_bytes(self, data: bytes) -> Sound:
        return load_sound(data, self.config.audio, self._rate)

    def encode_base64(self, media: Sound) -> str:
        """As a WAV of floating point numbers, without loss."""
        file = io.BytesIO()
        soundfile.write(file, media.samples, media.rate, format="WAV", subtype="FLOAT")
        return base64.b64encode(file.getvalue()).decode("ascii")


def load_sound(data: bytes, limits: AudioLimits, rate: int | None) -> Sound:
    """An audio file's sound, `rate` samples a second, None: as many as it has.

    BadMedia or TooLarge.
    """
    if not data:
        raise BadMedia("0 bytes")
    if len(data) > limits.max_bytes:
        raise TooLarge(f"file larger than {limits.max_bytes} bytes")
    name = sound_format(data)
    if name is None:
        raise BadMedia(_NAMES)
    file = _soundfile(data) if name in _SOUNDFILE_FORMATS else None
    if file is None:
        sound = _decoded(data, name, limits, rate)
    else:
        with file:
            _check(file.samplerate, file.channels, file.frames / file.samplerate, limits)
            sound = _resampled(_soundfile_blocks(file), file.samplerate, limits, rate)
    if sound is None:
        raise BadMedia("no samples of sound in the file")
    return sound


def load_sound_track(data: bytes, limits: AudioLimits, rate: int | None) -> Sound | None:
    """The sound of a video; None where it is silent."""
    name = video_format(data)
    return None if name is None else _decoded(data, name, limits, rate)


def _soundfile(data: bytes) -> soundfile.SoundFile | None:
    """None: not for this library."""
    try:
        file = soundfile.SoundFile(io.BytesIO(data))
    except (soundfile.SoundFileError, TypeError, ValueError):
        return None
    if file.samplerate > 0 and file.subtype.startswith(_SOUNDFILE_CODECS):
        return file
    file.close()
    return None


def _soundfile_blocks(file: soundfile.SoundFile) -> Iterator[Samples]:
    while True:
        try:
            block: Samples = file.read(_BLOCK, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            raise BadMedia("damaged sound") from error
        if not len(block):
            return
        yield _mixed(block.T)


def _decoded(data: bytes, name: str, limits: AudioLimits, rate: int | None) -> Sound | None:
    with opened(data, name) as container:
        stream = next(
            (s for s in container.streams.audio if is_sound_codec(s.codec_context.name)), None
        )
        if stream is None:
            if container.streams.audio:
                codec = container.streams.audio[0].codec_context.name
                raise BadMedia(f"sound in {codec}, which is not decoded here")
            return None
        context = stream.codec_context
        unit = stream.time_base or 0
        seconds = float(stream.duration * unit) if stream.duration else 0.0
        _check(context.sample_rate, context.channels, seconds, limits)
        blocks = _stream_blocks(container, stream)
        return _resampled(blocks, context.sample_rate, limits, rate)


def _stream_blocks(container: Any, stream: Any) -> Iterator[Samples]:
    rate, channels = stream.codec_context.sample_rate, stream.codec_context.channels
    planar = av.AudioResampler(format="fltp", layout=stream.codec_context.layout, rate=rate)
    waiting: list[Samples] = []
    num_waiting = 0
    for frame in container.decode(stream):
        if frame.sample_rate != rate or frame.layout.nb_channels != channels:
            raise BadMedia("rate or channels change inside the file")
        for converted in planar.resample(frame):
            samples: Samples = converted.to_ndarray().astype(np.float32, copy=False)
            waiting.append(_mixed(samples))
            num_waiting += samples.shape[1]
        if num_waiting >= _BLOCK:
            yield np.concatenate(waiting)
            waiting, num_waiting = [], 0
    if waiting:
        yield np.concatenate(waiting)


def _mixed(channels: Samples) -> Samples:
    """The mean of [channels, samples], several times as fast as numpy's own along a short axis."""
    if len(channels) == 1:
        only: Samples = channels[0]
        return only
    total: Samples = channels[0] + channels[1]
    for channel in channels[2:]:
        total += channel
    total /= len(channels)
    return total


def _check(rate: int, channels: int, seconds: float, limits: AudioLimits) -> None:
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise BadMedia(f"{rate} samples a second; {LOWEST_RATE} to {HIGHEST_RATE} can be read")
    if not 1 <= channels <= MOST_CHANNELS:
        raise BadMedia(f"{channels} channels, more than {MOST_CHANNELS}")
    if seconds > limits.max_seconds:
        raise _too_long(seconds, limits)


def _too_long(seconds: float, limits: AudioLimits) -> BadMedia:
    return BadMedia(f"{seconds:.6g} s long, more than the limit of {limits.max_seconds:g} s")


def _resampled(
    blocks: Iterator[Samples], source: int, limits: AudioLimits, rate: int | None
) -> Sound | None:
    """What `blocks` become at `rate`; None when there is nothing in them."""
    rate = rate or source
    stream = soxr.ResampleStream(source, rate, 1, dtype="float32") if source != rate else None
    most = limits.max_seconds * source
    found: list[Samples] = []
    num_read = 0
    for block in blocks:
        num_read += len(block)
        if num_read > most:
            raise _too_long(num_read / source, limits)
        if not np.isfinite(block).all():
            raise BadMedia("samples that are not finite numbers")
        found.append(block if stream is None else stream.resample_chunk(block))
    if stream is not None and num_read:
        found.append(stream.resample_chunk(np.empty(0, np.float32), last=True))
    if not sum(map(len, found)):
        return None
    return Sound(samples=np.clip(np.concatenate(found), -1.0, 1.0), rate=rate)
