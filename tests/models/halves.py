"""Both halves of a checkpoint, put together as a cluster does it, for tests of one family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from epd.media.decoded import Media
from epd.models.adapter import Asked, Prepared
from epd.models.language import LanguageModel, load_language
from epd.models.spec import Checkpoint, read_checkpoint
from epd.models.towers import Towers, load_towers
from epd.types import ItemKey, MediaOptions, Modality, Prompt, PromptItem
from tests.models import stand_in


@dataclass
class Halves:
    """Towers of every modality, and the language model on the stand-in attention."""

    checkpoint: Checkpoint
    towers: Towers
    language: LanguageModel

    def prepare(
        self,
        modality: Modality,
        media: Media,
        *,
        text_before: str = "",
        options: MediaOptions | None = None,
    ) -> Prepared:
        asked = asking(modality, text_before=text_before, options=options)
        return self.towers.prepare(media, asked)

    @torch.inference_mode()
    def answer(self, prompt: Prompt, rows: Sequence[torch.Tensor], num: int) -> list[int]:
        """`num` greedy tokens, everything computed again for each. 1-D positions."""
        model = self.language
        embeds = model.embed(torch.tensor(prompt.token_ids()))
        for at, item, own in zip(prompt.offsets, prompt.items, rows, strict=True):
            taken = 0
            for start, end in item.layout.row_spans:
                embeds[at + start : at + end] = own[taken : taken + end - start]
                taken += end - start
        new: list[int] = []
        for _ in range(num):
            plan = stand_in.Packed([len(embeds)])
            hidden = model.forward(embeds, torch.arange(len(embeds)), plan)
            new.append(int(model.logits(hidden[-1:]).argmax()))
            embeds = torch.cat([embeds, model.embed(torch.tensor(new[-1:]))])
        return new


def load(path: Path) -> Halves:
    """In float32 on the CPU."""
    checkpoint = read_checkpoint(path)
    assert checkpoint.spec.rotary == "1d"
    modalities = checkpoint.spec.modalities
    with stand_in.attention():
        language = load_language(checkpoint, device="cpu", dtype="float32")
    towers = load_towers(checkpoint, modalities=modalities, device="cpu", dtype="float32")
    return Halves(checkpoint, towers, language)


def asking(
    modality: Modality, *, text_before: str = "", options: MediaOptions | None = None
) -> Asked:
    """Nothing in particular unless said."""
    return Asked(
        modality=modality,
        content_key=b"key",
        text_before=text_before,
        dtype="float32",
        options=options or MediaOptions(),
    )


def resolve(text: Sequence[Sequence[int]], prepared: Sequence[Prepared]) -> Prompt:
    """Items between texts; each takes away what it replaces of the text before it."""
    texts = [tuple(ids) for ids in text]
    for i, one in enumerate(prepared):
        texts[i] = texts[i][: len(texts[i]) - one.layout.replaces_left]
    items = tuple(
        PromptItem(item=ItemKey(request_id="r", index=i, attempt=0), encoder="e", layout=one.layout)
        for i, one in enumerate(prepared)
    )
    return Prompt(text=tuple(texts), items=items)
