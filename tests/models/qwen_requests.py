"""Requests of any parts as epd's two halves of a model see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from epd.media.decoded import Clip, Picture
from epd.models.towers import Prepared, Towers
from epd.types import ItemKey, ItemLayout, MediaOptions, Modality, Prompt, PromptItem
from tests.models.clips import Part
from tests.models.pictures import asked
from tests.models.whole import Whole

NOTHING = MediaOptions()


def prepare(
    towers: Towers, media: Picture | Clip, options: MediaOptions = NOTHING, text_before: str = ""
) -> Prepared:
    modality = Modality.IMAGE if isinstance(media, Picture) else Modality.VIDEO
    wanted = asked(modality, towers.dtype_name)
    return towers.prepare(media, replace(wanted, options=options, text_before=text_before))


def resolved(whole: Whole, towers: Towers, parts: Sequence[Part]) -> tuple[Prompt, list[Prepared]]:
    """The request as epd's language workers see it, and its items."""
    items = [prepare(towers, part) for part in parts if not isinstance(part, str)]
    return prompt_of(whole, parts, [item.layout for item in items]), items


def prompt_of(whole: Whole, parts: Sequence[Part], layouts: Sequence[ItemLayout]) -> Prompt:
    texts = tuple(tuple(whole.ids(text)) for text in whole.texts(parts))
    return Prompt(text=texts, items=placed(layouts))


def placed(layouts: Sequence[ItemLayout]) -> tuple[PromptItem, ...]:
    """The items of one request."""
    return tuple(
        PromptItem(item=ItemKey(request_id="r", index=i, attempt=0), encoder="e", layout=layout)
        for i, layout in enumerate(layouts)
    )
