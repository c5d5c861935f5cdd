"""Media: what may be fetched, from where, and how its bytes become pictures, frames and sound.

Owns the fetch policy and the limits on files; knows no model, no queue and no socket between
workers. Whatever a client can fix is a BadRequest whose text names no address or path of ours.
"""

from epd.media.fetch import Fetcher
from epd.media.io import MediaIO
from epd.media.key import content_key
from epd.media.loading import (
    encode_audio_base64,
    encode_image_base64,
    encode_time_series_base64,
    encode_video_base64,
    load_audio,
    load_from_url,
    load_image,
    load_time_series,
    load_video,
)
from epd.media.policy import Policy

__all__ = [
    "Fetcher",
    "MediaIO",
    "Policy",
    "content_key",
    "encode_audio_base64",
    "encode_image_base64",
    "encode_time_series_base64",
    "encode_video_base64",
    "load_audio",
    "load_from_url",
    "load_image",
    "load_time_series",
    "load_video",
]
