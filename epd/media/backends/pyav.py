"""PyAV: FFmpeg in memory, one thread, from the last key frame before each wanted frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from epd.errors import BadMedia
from epd.media.backends.table import FrameTable
from epd.media.containers import opened

_PADDING = 128  # codecs round frames up
_LEAST = 1 << 20  # and some begin with buffers larger than a small frame


class PyAV:
    """The default."""

    def frames(
        self, data: bytes, table: FrameTable, indices: Sequence[int]
    ) -> Iterator[NDArray[np.uint8]]:
        padded = max(_LEAST, (table.width + _PADDING) * (table.height + _PADDING))
        with opened(data, table.container, max_pixels=padded) as container:
            stream = container.streams.video[table.stream]
            stream.codec_context.thread_count = 1
            stream.codec_context.options = {"max_pixels": str(padded)}
            wanted = _by_time if table.times else _by_count
            for frame in wanted(container, stream, table, indices):
                pixels: NDArray[Any] = frame.to_ndarray(format="rgb24")
                yield _upright(pixels, frame.rotation)


def _by_count(
    container: InputContainer, stream: VideoStream, table: FrameTable, indices: Sequence[int]
) -> Iterator[VideoFrame]:
    wanted = iter(indices)
    index = next(wanted, None)
    for number, frame in enumerate(container.decode(stream)):
        if number == index:
            yield frame
            index = next(wanted, None)
        if index is None:
            return
    raise _missing(index, table)


def _by_time(
    container: InputContainer, stream: VideoStream, table: FrameTable, indices: Sequence[int]
) -> Iterator[VideoFrame]:
    """Seeks where that skips something, and starts again from the front where a seek missed."""
    shown: Iterator[VideoFrame] = iter(())
    now = table.times[0] - 1
    began = False
    for index in indices:
        time = table.times[index]
        if not began or table.key_before(time) > now:
            shown, began = _from(container, stream, table.key_before(time)), True
        frame = _shown_at(shown, time)
        if frame is None:
            shown = _from(container, stream, table.times[0])
            frame = _shown_at(shown, time)
        if frame is None:
            raise _missing(index, table)
        now = time
        yield frame


def _from(container: InputContainer, stream: VideoStream, time: int) -> Iterator[VideoFrame]:
    container.seek(time, stream=stream)
    return container.decode(stream)


def _shown_at(frames: Iterator[VideoFrame], time: int) -> VideoFrame | None:
    for frame in frames:
        if frame.pts is None or frame.pts > time:
            return None
        if frame.pts == time:
            return frame
    return None


def _missing(index: int | None, table: FrameTable) -> BadMedia:
    return BadMedia(f"frame {index} of {table.num_frames} cannot be decoded")


def _upright(pixels: NDArray[np.uint8], degrees: int) -> NDArray[np.uint8]:
    """`degrees` counter-clockwise."""
    return np.rot90(pixels, degrees // 90) if degrees % 360 else pixels


BACKEND = PyAV()
