"""decord: reads the file from memory and seeks to exact frames."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import numpy as np
from decord import DECORDError, VideoReader, cpu
from numpy.typing import NDArray

from epd.errors import BadMedia
from epd.media.backends.table import FrameTable


class Decord:
    """One thread, on the CPU."""

    def frames(
        self, data: bytes, table: FrameTable, indices: Sequence[int]
    ) -> Iterator[NDArray[np.uint8]]:
        try:
            video = VideoReader(io.BytesIO(data), ctx=cpu(0), num_threads=1)
            for index in indices:
                yield video[index].asnumpy()
        except (DECORDError, IndexError) as error:
            raise BadMedia("damaged or truncated file") from error


BACKEND = Decord()
