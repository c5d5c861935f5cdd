"""How much memory one decoder process may take for an item, from the limits on items."""

from __future__ import annotations

from epd.config.media import MediaConfig
from epd.config.section import MIB
from epd.media.decoders import desks

BASE_BYTES = 160 * MIB + desks.ALL_BYTES
"""Python, the libraries and the desks, as resident memory."""

SLACK_BYTES = 256 * MIB
_PICTURE = 12  # as it is in the file, as RGBA, and over its background: bytes of a pixel
_CODEC = 8 * 3 // 2  # reference frames in 4:2:0, as many as levels allow of large ones
_FRAME = 3 * 3  # one frame being converted, turned and copied
_SERIES = 64  # a number as text, in a line of its own, and as a number
_SOUND_RATE = 48_000  # more than any model listens to; a file's own rate is never held whole


def result_bytes(config: MediaConfig) -> int:
    """The largest decoded item."""
    return max(
        4 * config.image.max_pixels,
        3 * config.video.max_decoded_pixels,
        4 * int(config.audio.max_seconds * _SOUND_RATE),
        4 * config.time_series.max_values,
    )


def work_bytes(config: MediaConfig) -> int:
    """The file, its result and all between them, for one item."""
    image, video, series = config.image, config.video, config.time_series
    kinds = (image, video, config.audio, series, config.file)
    return max(kind.max_bytes for kind in kinds) + max(
        _PICTURE * image.max_pixels,
        3 * video.max_decoded_pixels + (_CODEC + _FRAME) * video.max_pixels,
        2 * 4 * int(config.audio.max_seconds * _SOUND_RATE),
        _SERIES * series.max_values,
    )


def limit_bytes(config: MediaConfig) -> int:
    """Where the kernel says no: what one item can cost, and room for what memory is wasted."""
    return work_bytes(config) + SLACK_BYTES
