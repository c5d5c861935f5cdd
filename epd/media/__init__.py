"""Media: what may be fetched, from where, and how its bytes become a picture.

Owns the fetch policy and the limits on files; knows no model, no queue and no socket between
workers. Whatever a client can fix is a BadMedia (or TooLarge) whose text names no address of ours.
"""

from epd.media.fetch import Fetcher
from epd.media.image import DECODING as IMAGE_DECODING
from epd.media.image import load_image
from epd.media.key import content_key

__all__ = ["IMAGE_DECODING", "Fetcher", "content_key", "load_image"]
