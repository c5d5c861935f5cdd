"""Hostile and odd media, all made by code: what a stranger could send, and what must come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from tests.corpus import (
    broken_pictures,
    broken_videos,
    embeds,
    parts,
    pictures,
    sounds,
    videos,
)
from tests.corpus.entry import Entry

ROOMS: Final[dict[str, Callable[[int], Iterator[Entry]]]] = {
    "pictures": lambda width: pictures.entries(),
    "broken pictures": lambda width: broken_pictures.entries(),
    "videos": lambda width: videos.entries(),
    "broken videos": lambda width: broken_videos.entries(),
    "sounds": lambda width: sounds.entries(),
    "parts": lambda width: parts.entries(),
    "embeds": embeds.entries,
}
"""Entries by what they are about, made when they are asked for; `width` is that of the model's
rows."""
