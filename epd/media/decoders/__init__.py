"""Decoding in processes of its own: what a hostile file breaks there is one item, and no worker.

Callers are threads; each has one process for one item at a time. What comes back is checked as
if a stranger had sent it, for after a bad file that may be so.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from epd.config.media import MediaConfig
from epd.errors import BadMedia, EpdError, InternalError, Unavailable
from epd.media.backends import check_backend
from epd.media.decoded import Clip, Picture, Series, Sound, VideoInfo
from epd.media.decoders import answers
from epd.media.decoders.answers import Expected
from epd.media.decoders.link import Malformed
from epd.media.decoders.process import Lost, Process, StartFailed
from epd.media.decoders.sealed import Array
from epd.media.frames import check_pixels

__all__ = ["Decoders"]

log = logging.getLogger(__name__)

_NO_START = "decoder: its process does not start"
_MOST_STARTS = 8
"""In a row, for one item: what ended the first need not be there for the second, and whoever ends
processes for want of memory may choose those that start."""

Choose = Callable[[VideoInfo], Sequence[int]]


class Decoders:
    """Thread-safe. Every method decodes one item, and waits while all processes are busy.

    BadMedia and TooLarge say what is wrong with the item, a crash and a hang included.
    """

    def __init__(self, num: int, config: MediaConfig) -> None:
        """ConfigError when the video backend cannot be used."""
        check_backend(config.video.backend)
        self._num = num
        self._config = config
        self._picture = Expected("uint8", 3, 4 * config.image.max_pixels)
        self._changed = threading.Condition()
        self._closed = False
        self._all = {Process(config) for _ in range(num)}
        self._idle = list(self._all)
        if config.video.backend != "pyav":
            self._check_start()

    @property
    def pids(self) -> list[int]:
        """Of the processes there are now."""
        with self._changed:
            return sorted(process.pid for process in self._all)

    def image(self, data: bytes) -> Picture:
        """A picture, upright, RGB. As long as it lives it may occupy a desk of its process."""
        with self._process() as process:
            process.start("image", [data])
            image = answers.picture(process.answer(), process.desks, self._picture)
        return Picture(image=image)

    def video(self, data: bytes, choose: Choose, *, sound_rate: int | None = None) -> Clip:
        """The frames that `choose` takes of what the container says; sound where there is any."""
        with self._process() as process:
            process.start("video", [data])
            info = answers.info(process.answer(), self._config.video)
            try:
                indices = [int(index) for index in choose(info)]
                check_pixels(len(indices), info.height, info.width, self._config.video)
            except BaseException:
                process.tell()  # no frames are wanted
                raise
            process.tell(indices=indices, rate=sound_rate)
            expected = (self._frames(), self._samples(sound_rate or 0))
            _, (frames, *sounds) = answers.arrays(process.answer(), *expected)
            answers.check_count(frames, len(indices))
        return Clip(
            frames=frames,
            indices=tuple(indices),
            info=replace(info, height=frames.shape[1], width=frames.shape[2]),
            sound=Sound(samples=sounds[0], rate=sound_rate) if sounds and sound_rate else None,
        )

    def frames(self, pieces: Sequence[bytes]) -> Array:
        """Pictures of one size: uint8 [frames, height, width, 3]."""
        with self._process() as process:
            process.start("frames", pieces)
            _, (frames,) = answers.arrays(process.answer(), self._frames())
            answers.check_count(frames, len(pieces))
        return frames

    def audio(self, data: bytes, rate: int) -> Sound:
        """An audio file's sound, `rate` samples a second."""
        with self._process() as process:
            process.start("audio", [data], rate=rate)
            _, (samples,) = answers.arrays(process.answer(), self._samples(rate))
        return Sound(samples=samples, rate=rate)

    def series(self, data: bytes) -> Series:
        """A table of numbers."""
        with self._process() as process:
            process.start("series", [data])
            expected = Expected("float32", 2, self._config.time_series.max_values)
            said, (values,) = answers.arrays(process.answer(), expected)
            rate = answers.rate(said)
        return Series(values=values, rate=rate)

    def document(self, data: bytes) -> str:
        """The text of a PDF."""
        with self._process() as process:
            process.start("document", [data])
            expected = Expected("uint8", 1, 4 * self._config.file.max_characters)
            _, (text,) = answers.arrays(process.answer(), expected)
            return answers.text(text)

    def close(self) -> None:
        """End the processes; who waits for one, or for its answer, gets Unavailable."""
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            busy = self._all.difference(idle)
            self._changed.notify_all()
        for process in idle:
            process.close()
        for process in busy:
            process.kill()  # whoever has it closes it

    # ---- what may come back

    def _frames(self) -> Expected:
        return Expected("uint8", 4, 3 * self._config.video.max_decoded_pixels)

    def _samples(self, rate: int) -> Expected:
        return Expected("float32", 1, int((self._config.audio.max_seconds + 1) * rate))

    # ---- processes

    @contextmanager
    def _process(self) -> Iterator[Process]:
        """One that is idle, for one item. It is replaced unless it is at its place again."""
        process = self._ready()
        healthy = False
        try:
            yield process
            healthy = True
        except (Lost, Malformed) as error:
            log.warning("decoder lost: %s", error, extra={"pid": process.pid})
            with self._changed:
                self._check_open()
            reason = str(error) if isinstance(error, Lost) else "the decoder gave no valid answer"
            raise BadMedia(reason) from error
        except EpdError:
            healthy = True
            raise
        finally:
            self._give_back(process, healthy=healthy)

    def _ready(self) -> Process:
        """One that can take an item now. Whose start something ends is replaced, for a while."""
        failed: StartFailed | None = None
        for _ in range(_MOST_STARTS):
            process = self._borrow()
            try:
                process.wait_ready()
            except BaseException as error:
                self._give_back(process, healthy=False)
                if not isinstance(error, StartFailed):
                    raise
                log.warning("decoder lost: it ended as it started", extra={"pid": process.pid})
                failed = error
            else:
                return process
        raise InternalError(_NO_START) from failed

    def _borrow(self) -> Process:
        """An idle one, or one in place of those that were lost."""
        with self._changed:
            while not (self._idle or len(self._all) < self._num or self._closed):
                self._changed.wait()
            self._check_open()
            while self._idle:
                process = self._idle.pop()
                if process.alive:
                    return process
                self._remove(process)  # killed while it had nothing to do: no item is at fault
            try:
                process = Process(self._config)
            except OSError as error:
                raise InternalError(_NO_START) from error
            self._all.add(process)
            return process

    def _give_back(self, process: Process, *, healthy: bool) -> None:
        with self._changed:
            if healthy and not self._closed:
                self._idle.append(process)
            else:
                self._remove(process)
            self._changed.notify()

    def _remove(self, process: Process) -> None:
        self._all.discard(process)
        process.close()

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the decoders are closed")

    def _check_start(self) -> None:
        try:
            for process in self._all:
                process.wait_ready()
        except BaseException:
            self.close()
            raise
