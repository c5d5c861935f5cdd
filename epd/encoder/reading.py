"""From a job and its bytes to a prepared item: decode as its form says, then preprocess."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import accumulate

from epd.config import MediaConfig
from epd.encoder.events import PreparedItem, Towers
from epd.encoder.times import ItemTimes
from epd.errors import BadMedia, BadRequest, EpdError, InternalError
from epd.media import content_key
from epd.media.decoded import Media, Sound, Tensors, VideoInfo
from epd.media.decoders import Decoders
from epd.media.frames import load_clip
from epd.media.sampling import capped
from epd.media.tensors import read_tensors
from epd.media.versions import decoding
from epd.models.adapter import Asked
from epd.types import PAST_THE_END, Activity, ItemForm, ItemKey, MediaOptions, Modality
from epd.wire.messages import EncodeItem

log = logging.getLogger(__name__)

SHORTEST_S = 0.1
"""Of the last window of a sound: what is left is less than a word."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One item's bytes: all of its pieces, one behind the other."""

    job: EncodeItem
    data: bytes

    def pieces(self) -> list[tuple[str, bytes]]:
        """(name, bytes) of each. InternalError where the sizes are not those of the data."""
        named = self.job.pieces or (("file", len(self.data)),)
        sizes = [size for _, size in named]
        if min(sizes) < 0 or sum(sizes) != len(self.data):
            raise InternalError("the job's pieces do not make up its bytes")
        if len(sizes) == 1:
            return [(named[0][0], self.data)]
        ends = list(accumulate(sizes))
        return [
            (name, self.data[end - size : end])
            for (name, size), end in zip(named, ends, strict=True)
        ]


class Reader:
    """Any thread. `settings` names everything about model and processor that shapes rows.

    `times` learns how long each item took.
    """

    def __init__(
        self, towers: Towers, decoders: Decoders, media: MediaConfig, settings: str
    ) -> None:
        self._towers = towers
        self._decoders = decoders
        self._media = media
        self._settings = settings
        self.times = ItemTimes()

    def key(self, reading: Reading) -> bytes:
        """Covers the bytes and everything that shapes what becomes of them, and the tenant."""
        job = reading.job
        return content_key(
            reading.data,
            self._settings,
            job.salt,
            job.modality.value,
            job.form.value,
            json.dumps(job.pieces if job.form is not ItemForm.FILE else ()),
            json.dumps(asdict(job.options), sort_keys=True),
            decoding(job.modality, job.form, self._media),
        )

    def prepare(
        self, reading: Reading, key: bytes, wanted: Callable[[], bool]
    ) -> PreparedItem | None:
        """Decode and preprocess. EpdError says what is wrong, and whose fault it is.

        None: `wanted`, asked between the two, says that nobody needs it any more.
        """
        job = reading.job
        asked = Asked(
            modality=job.modality,
            content_key=key,
            text_before=job.text_before,
            dtype=self._towers.dtype_name,
            options=job.options,
        )
        if job.form is ItemForm.EMBEDS:
            with self.doing(job, Activity.DECODE, "embeddings"):
                prepared = self._from_embeds(reading, asked)
        else:
            with self.doing(job, Activity.DECODE):
                media = self._media_of(reading)
            if not wanted():
                return None
            with self.doing(job, Activity.PREPROCESS):
                prepared = self._towers.prepare(media, asked)
        self._check_tokens(prepared, job.modality)
        return prepared

    @contextmanager
    def doing(self, job: EncodeItem, activity: Activity, name: str = "") -> Iterator[None]:
        """Measured, and what goes wrong is blamed on it."""
        with self.times.measure(job.item, activity), fault_of(job, name or activity.value):
            yield

    def _from_embeds(self, reading: Reading, asked: Asked) -> PreparedItem:
        limits = self._media.limits(asked.modality.value)
        tensors: Tensors = {}
        for name, data in reading.pieces():
            tensors |= read_tensors(name, data, limits)
        return self._towers.from_embeds(tensors, asked)

    def _media_of(self, reading: Reading) -> Media:
        job, decoders = reading.job, self._decoders
        pieces = [data for _, data in reading.pieces()]
        if job.form is ItemForm.FRAMES:
            if job.modality is not Modality.VIDEO:
                raise BadRequest("only videos come as frames")
            self._sound_rate(job.options)
            return load_clip(
                pieces, job.options, self._media, lambda taken, _: decoders.frames(taken)
            )
        (data,) = pieces
        match job.modality:
            case Modality.IMAGE:
                return decoders.image(data)
            case Modality.AUDIO:
                return windowed(decoders.audio(data, self._towers.sampling_rate), job.options)
            case Modality.TIME_SERIES:
                return decoders.series(data)
            case Modality.VIDEO:
                return decoders.video(
                    data,
                    lambda info: self._choose(info, job.options),
                    sound_rate=self._sound_rate(job.options),
                )

    def _choose(self, info: VideoInfo, options: MediaOptions) -> Sequence[int]:
        """The model's own choice, within what was asked for and the operator's ceiling."""
        indices = self._towers.sample_frames(info, options)
        if options.num_frames is not None:
            indices = capped(indices, options.num_frames)
        return capped(indices, self._media.video.max_frames)

    def _sound_rate(self, options: MediaOptions) -> int | None:
        if not options.use_audio_in_video:
            return None
        if not self._towers.sound_in_video:
            raise BadRequest("use_audio_in_video: this model does not take the sound of videos")
        if Modality.AUDIO not in self._towers.modalities:
            raise InternalError("a video with sound came to a worker that encodes no audio")
        return self._towers.sampling_rate

    def _check_tokens(self, prepared: PreparedItem, modality: Modality) -> None:
        most = self._media.limits(modality.value).max_tokens
        num_tokens = len(prepared.layout.token_ids)
        if most is not None and num_tokens > most:
            raise BadMedia(f"becomes {num_tokens} tokens, more than the limit of {most}")


def whose(item: ItemKey) -> dict[str, str | int]:
    """For log lines that are about one item."""
    return {"request": item.request_id, "item": item.index}


def windowed(sound: Sound, options: MediaOptions) -> Sound:
    """The part of a sound that was asked for. BadMedia where it begins behind the end."""
    if options.most_s is None:
        return sound
    begin = int(options.begin_s * sound.rate)
    if begin and len(sound.samples) - begin < SHORTEST_S * sound.rate:
        raise BadMedia("the sound has ended before this window", code=PAST_THE_END)
    samples = sound.samples[begin : begin + int(options.most_s * sound.rate)]
    return replace(sound, samples=samples)


@contextmanager
def fault_of(job: EncodeItem, stage: str) -> Iterator[None]:
    """What is nobody's fault but ours says where it happened, and the log has the traceback."""
    try:
        yield
    except EpdError:
        raise
    except Exception as error:
        log.exception("intake failed", extra={**whose(job.item), "doing": stage})
        raise InternalError(f"internal error in {stage}") from error
