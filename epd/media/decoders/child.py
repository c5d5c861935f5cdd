"""A decoder process: gets files over a socket, answers with arrays or with what is wrong.

Started by its parent as `python -m epd.media.decoders.child FD`. It imports no torch, holds no
secret and no connection but this one, and its memory and time are limited by the kernel. It ends
when its parent does: at once when idle, else when the time of the item in hand is up.
"""

from __future__ import annotations

import mmap
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import setproctitle
from numpy.typing import NDArray
from PIL import Image

from epd.config.media import MediaConfig
from epd.errors import BadRequest, ConfigError
from epd.media.audio import load_sound, load_sound_track
from epd.media.backends import Backend, load_backend
from epd.media.decoders import link, sealed
from epd.media.decoders.desks import ALL_BYTES, DESK_BYTES, MOST_PIXELS, picture_on
from epd.media.decoders.link import Link
from epd.media.document import load_document
from epd.media.frames import each_frame
from epd.media.image import load_image
from epd.media.series import load_series
from epd.media.video import open_video

_MOST_FDS = 64

Result = tuple[int, tuple[int, ...]]
"""Memory, and the shape of the array in it."""


def main() -> None:
    """Until the parent is gone."""
    setproctitle.setproctitle("epd: decoder")
    parent = Link(socket.socket(fileno=int(sys.argv[1])))
    try:
        settings, fds = parent.receive()
    except EOFError:
        return
    config = MediaConfig.model_validate(settings["media"])
    try:
        backend = load_backend(config.video.backend)
    except ConfigError as error:
        parent.send({"error": "config", "message": error.message})
        return
    desks = mmap.mmap(fds[0], ALL_BYTES)
    link.close(fds)
    _limit_memory(settings["memory"])
    parent.send({"ready": True})
    server = Server(parent, desks, config, backend)
    while server.serve(settings["timeout"]):
        pass


def _limit_memory(num_bytes: int) -> None:
    """On top of what is mapped now. A file that wants more gets a MemoryError, or ends us."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    for what, most in (
        (resource.RLIMIT_AS, mapped + num_bytes),
        (resource.RLIMIT_FSIZE, num_bytes),
        (resource.RLIMIT_NOFILE, _MOST_FDS),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


class Server:
    """One item at a time."""

    def __init__(
        self, parent: Link, desks: mmap.mmap, config: MediaConfig, backend: Backend
    ) -> None:
        self._parent = parent
        self._desks = desks
        self._at = 0  # where the desk of the item in hand begins
        self._config = config
        self._backend = backend
        self._open: list[int] = []  # descriptors of the item in hand
        self._kinds: dict[str, Callable[[Sequence[bytes], dict[str, Any]], None]] = {
            "image": self._image,
            "video": self._video,
            "frames": self._frames,
            "audio": self._audio,
            "series": self._series,
            "document": self._document,
        }

    def serve(self, timeout: float) -> bool:
        """Answer one item. False when the parent is gone."""
        try:
            message, self._open = self._parent.receive()
        except EOFError:
            return False
        signal.setitimer(signal.ITIMER_REAL, timeout)  # nobody catches it: it ends the process
        try:
            self._at = message["desk"] * DESK_BYTES
            self._kinds[message["do"]](self._pieces(message["sizes"]), message)
        except BadRequest as error:
            self._refuse(type(error).__name__, error.message)
        except MemoryError:
            self._refuse("BadMedia", "takes more memory to decode than one item may have")
        except EOFError:
            return False
        except Exception as error:  # noqa: BLE001  the barrier of this item, which gets an answer
            self._refuse("InternalError", f"{type(error).__name__}: {error}"[:1000])
        finally:
            link.close(self._open)
            signal.setitimer(signal.ITIMER_REAL, 0)
        return True

    def _refuse(self, error: str, text: str) -> None:
        self._parent.send({"error": error, "message": text})

    def _pieces(self, sizes: Sequence[int]) -> list[bytes]:
        if self._open:
            return sealed.taken(self._open[0], sizes)
        ends = accumulate(sizes, initial=self._at)
        return [self._desks[start:end] for start, end in pairwise(ends)]

    def _memory(self) -> int:
        self._open.append(sealed.memory())
        return self._open[-1]

    # ---- one method per kind of item

    def _image(self, pieces: Sequence[bytes], message: dict[str, Any]) -> None:
        image = load_image(pieces[0], self._config.image, self._room)
        width, height = image.size
        if width * height <= MOST_PIXELS:
            self._parent.send({"desk": [width, height]})
            return
        del image  # what is written to cannot be sealed
        self._give({}, [(self._open[-1], (height, width, 4))])

    def _room(self, size: tuple[int, int]) -> Image.Image:
        num_bytes = 4 * size[0] * size[1]
        if num_bytes <= 4 * MOST_PIXELS:
            return picture_on(self._desks, size, self._at)
        fd = self._memory()
        os.ftruncate(fd, num_bytes)
        return picture_on(mmap.mmap(fd, num_bytes), size)

    def _audio(self, pieces: Sequence[bytes], message: dict[str, Any]) -> None:
        sound = load_sound(pieces[0], self._config.audio, message["rate"])
        self._give({}, [self._written(sound.samples)])

    def _series(self, pieces: Sequence[bytes], message: dict[str, Any]) -> None:
        series = load_series(pieces[0], self._config.time_series)
        self._give({"rate": series.rate}, [self._written(series.values)])

    def _document(self, pieces: Sequence[bytes], message: dict[str, Any]) -> None:
        text = load_document(pieces[0], self._config.file).encode()
        fd = self._memory()
        sealed.write(fd, memoryview(text))
        self._give({}, [(fd, (len(text),))])

    def _frames(self, pieces: Sequence[bytes], message: dict[str, Any]) -> None:
        self._give({}, [self._stacked(each_frame(pieces, self._config))])

    def _video(self, pieces: Sequence[bytes], message: dict[str, Any]) -> None:
        """Says what the file is, waits to hear which frames are wanted, decodes them."""
        data = pieces[0]
        video = open_video(data, self._config.video)
        self._parent.send({"info": asdict(video.info)})
        wanted, _ = self._parent.receive()
        if "indices" not in wanted:
            return
        limits = self._config.video
        frames = video.frames(wanted["indices"], limits=limits, backend=self._backend)
        results = [self._stacked(frames)]
        if wanted["rate"] and video.info.has_sound:
            sound = load_sound_track(data, self._config.audio, wanted["rate"])
            if sound is not None:
                results.append(self._written(sound.samples))
        self._give({}, results)

    def _stacked(self, frames: Iterator[NDArray[np.uint8]]) -> Result:
        """Writing is half the work of filling mapped memory, page by page."""
        fd = self._memory()
        shape: tuple[int, ...] = ()
        count = 0
        for count, frame in enumerate(frames, 1):  # noqa: B007
            shape = frame.shape
            sealed.write(fd, np.ascontiguousarray(frame).data.cast("B"))
        return fd, (count, *shape)

    def _written(self, array: NDArray[np.float32]) -> Result:
        fd = self._memory()
        sealed.write(fd, array.tobytes())
        return fd, array.shape

    def _give(self, facts: dict[str, Any], results: Sequence[Result]) -> None:
        for fd, _ in results:
            sealed.seal(fd)
        shapes = [list(shape) for _, shape in results]
        self._parent.send({"arrays": shapes, **facts}, [fd for fd, _ in results])


if __name__ == "__main__":
    main()
