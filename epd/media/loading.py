"""Opening media by hand: from a URL, a path or bytes, and back to base64.

Decoders are imported by the functions that need them, so that importing this costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from epd.config import MediaConfig
from epd.media.data_url import is_data_url, parse_data_url
from epd.media.fetch import Fetcher
from epd.media.io import MediaIO
from epd.types import MediaOptions

if TYPE_CHECKING:
    from PIL import Image

    from epd.media.decoded import Clip, Picture, Series, Sound

M = TypeVar("M")

Source = str | Path | bytes
"""A URL or a path, a path, or a file's content."""

_SCHEMES = ("http:", "https:", "data:", "file:")


def load_from_url(
    url: str,
    io: MediaIO[M],
    fetcher: Fetcher | None = None,
    *,
    wanted: Callable[[], bool] | None = None,
) -> M:
    """Whatever an http, https, data: or file: URL leads to, under the fetcher's policy.

    Without a fetcher one is made of the configuration that `io` has.
    """
    if is_data_url(url):
        inline = parse_data_url(url)
        if inline.base64:
            return io.load_base64(inline.text, inline.media_type)
        return io.load_bytes(inline.data)
    return io.load_bytes((fetcher or Fetcher(io.config)).fetch(url, io.modality, wanted=wanted))


def load_image(source: Source, config: MediaConfig | None = None) -> Picture:
    """One picture, upright RGB."""
    from epd.media.image import ImageIO

    return _load(source, ImageIO(config))


def load_video(
    source: Source, config: MediaConfig | None = None, options: MediaOptions | None = None
) -> Clip:
    """Frames of one video, as many as `options` say and the operator allows."""
    from epd.media.video import VideoIO

    return _load(source, VideoIO(config, options))


def load_audio(
    source: Source, config: MediaConfig | None = None, *, rate: int | None = None
) -> Sound:
    """One clip, mixed down to one channel, at `rate` samples a second or else at its own."""
    from epd.media.audio import AudioIO

    return _load(source, AudioIO(config, rate=rate))


def load_time_series(source: Source, config: MediaConfig | None = None) -> Series:
    """One time series."""
    from epd.media.series import TimeSeriesIO

    return _load(source, TimeSeriesIO(config))


def encode_image_base64(picture: Picture | Image.Image) -> str:
    """As a PNG, without loss."""
    from epd.media.decoded import Picture
    from epd.media.image import ImageIO

    return ImageIO().encode_base64(
        picture if isinstance(picture, Picture) else Picture(image=picture)
    )


def encode_video_base64(clip: Clip) -> str:
    """As `data:video/jpeg` takes it: its frames as JPEGs, one behind the other."""
    from epd.media.video import VideoIO

    return VideoIO().encode_base64(clip)


def encode_audio_base64(sound: Sound) -> str:
    """As a WAV."""
    from epd.media.audio import AudioIO

    return AudioIO().encode_base64(sound)


def encode_time_series_base64(series: Series) -> str:
    """As a .npy."""
    from epd.media.series import TimeSeriesIO

    return TimeSeriesIO().encode_base64(series)


def _load(source: Source, io: MediaIO[M]) -> M:
    if isinstance(source, bytes):
        return io.load_bytes(source)
    if isinstance(source, str) and source.lower().startswith(_SCHEMES):
        return load_from_url(source, io)
    return io.load_file(Path(source))
