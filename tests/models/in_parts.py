"""Requests of any parts through epd's two halves, without a cluster between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from epd.media.decoded import Clip, Picture, Sound
from epd.models.language import LanguageModel
from epd.models.towers import Prepared, Towers
from epd.types import ItemKey, ItemLayout, MediaOptions, Modality, Prompt, PromptItem
from tests.models.generate import greedy, merged
from tests.models.pictures import asked
from tests.models.sounds import Part
from tests.models.thinker import Thinker

NUM_TOKENS = 8
MODALITIES = {Picture: Modality.IMAGE, Clip: Modality.VIDEO, Sound: Modality.AUDIO}
WITH_SOUND = MediaOptions(use_audio_in_video=True)


def prepare(
    towers: Towers, media: Picture | Clip | Sound, options: MediaOptions = WITH_SOUND
) -> Prepared:
    question = asked(MODALITIES[type(media)], towers.dtype_name)
    return towers.prepare(media, replace(question, options=options))


def resolved(
    thinker: Thinker, towers: Towers, parts: Sequence[Part]
) -> tuple[Prompt, list[Prepared]]:
    """The request as epd's language workers see it, and its items."""
    items = [prepare(towers, part) for part in parts if not isinstance(part, str)]
    return prompt_of(thinker, parts, [item.layout for item in items]), items


def prompt_of(thinker: Thinker, parts: Sequence[Part], layouts: Sequence[ItemLayout]) -> Prompt:
    return Prompt(
        text=tuple(tuple(thinker.ids(text)) for text in thinker.texts(parts)),
        items=tuple(
            PromptItem(item=ItemKey(request_id="r", index=i, attempt=0), encoder="e", layout=layout)
            for i, layout in enumerate(layouts)
        ),
    )


def answer(
    language: LanguageModel,
    prompt: Prompt,
    rows: list[torch.Tensor],
    places: tuple[torch.Tensor, float] | None = None,
) -> list[int]:
    """Greedy tokens, at other positions than the prompt's if asked."""
    positions, delta = places or language.positions(prompt)
    return greedy(language, merged(language, prompt, rows), positions, delta, NUM_TOKENS)
