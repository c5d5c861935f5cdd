"""A tokenised prompt whose items are not resolved yet: what the gateway hands to the cluster."""

from __future__ import annotations

from dataclasses import dataclass

from epd.prompt.source import Source
from epd.types import MediaOptions, Modality


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaPart:
    """One item of the prompt.

    `index` counts the items in prompt order. `text_before` is the prompt's text since the last
    special token. `where` is the part of the request that an error names.
    """

    modality: Modality
    index: int
    source: Source
    text_before: str
    where: str
    options: MediaOptions = MediaOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """text[0], parts[0], text[1], ...: the ids between placeholders, which are left out."""

    text: tuple[tuple[int, ...], ...]
    parts: tuple[MediaPart, ...] = ()

    @property
    def num_text_tokens(self) -> int:
        """Tokens that are known before any item is resolved."""
        return sum(map(len, self.text))
