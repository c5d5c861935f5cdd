"""Hostile and odd media, all made by code: what a stranger could send, and what must come of it."""

from __future__ import annotations

from collections.abc import Iterator

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


def corpus(width: int) -> Iterator[Entry]:
    """All entries; `width` is that of the model's rows."""
    for room in (pictures, broken_pictures, videos, broken_videos, sounds, parts):
        yield from room.entries()
    yield from embeds.entries(width)
