"""OpenCV: reads the file through a buffer in memory, frame after frame from the first.

It decodes every frame up to the last wanted one, so long videos take longer than with PyAV.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from epd.errors import BadMedia
from epd.media.backends.table import FrameTable
from epd.media.containers import FORMATS

# Options of its FFmpeg, which opens the file a second time.
os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = f"format_whitelist;{FORMATS}|protocol_whitelist;none"


class OpenCV:
    """Needs a build with stream buffers: 4.11 or later."""

    def frames(
        self, data: bytes, table: FrameTable, indices: Sequence[int]
    ) -> Iterator[NDArray[np.uint8]]:
        cv2.setNumThreads(1)
        file = io.BytesIO(data)  # OpenCV holds no reference of its own
        video = cv2.VideoCapture(file, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        try:
            at = -1
            for index in indices:
                while at < index and video.grab():
                    at += 1
                found, pixels = video.retrieve() if at == index else (False, None)
                if not found or pixels is None:
                    raise BadMedia(f"frame {index} of {table.num_frames} cannot be decoded")
                yield np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
        except cv2.error as error:
            raise BadMedia("damaged or truncated file") from error
        finally:
            video.release()


BACKEND = OpenCV()
