"""torchcodec: FFmpeg behind torch, which its process then loads too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torchcodec.decoders import VideoDecoder

from epd.errors import BadMedia
from epd.media.backends.table import FrameTable


class TorchCodec:
    """Seeks by an index of all frames, so that numbers are exact."""

    def frames(
        self, data: bytes, table: FrameTable, indices: Sequence[int]
    ) -> Iterator[NDArray[np.uint8]]:
        try:
            video = VideoDecoder(
                data, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact"
            )
            for index in indices:
                yield np.asarray(video[index].numpy(), np.uint8)
        except (RuntimeError, IndexError, ValueError) as error:
            raise BadMedia("damaged or truncated file") from error


BACKEND = TorchCodec()
