"""The shortest generation loop over both halves: no cache, everything computed again per token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from epd.models.language import LanguageModel
from epd.types import Prompt
from tests.models import stand_in


@dataclass
class Merged:
    """A prompt's embeddings, and what LanguageModel.forward takes beside them."""

    embeds: torch.Tensor
    deepstack: tuple[torch.Tensor, torch.Tensor] | None


def merged(model: LanguageModel, asked: Prompt, rows: Sequence[torch.Tensor]) -> Merged:
    """The prompt's tokens, with each item's rows in their places."""
    embeds = model.embed(torch.tensor(asked.token_ids(), device=model.device))
    if not rows:
        return Merged(embeds, None)
    spans = [
        torch.arange(at + start, at + end)
        for at, item in zip(asked.offsets, asked.items, strict=True)
        for start, end in item.layout.row_spans
    ]
    places = torch.cat(spans).to(model.device)
    first, *deeper = torch.cat(list(rows)).chunk(1 + model.deepstack_levels, dim=1)
    embeds[places] = first
    return Merged(embeds, (places, torch.stack(deeper)) if deeper else None)


def greedy(
    model: LanguageModel, prompt: Merged, positions: torch.Tensor, delta: float, num: int
) -> list[int]:
    """`num` tokens after a prompt at these positions."""
    embeds, positions = prompt.embeds, positions.to(model.device)
    new: list[int] = []
    for _ in range(num):
        plan = stand_in.Packed([len(embeds)])
        hidden = model.forward(embeds, positions, plan, prompt.deepstack)
        new.append(int(model.logits(hidden[-1:]).argmax()))
        position = torch.full_like(positions[..., :1], len(embeds) + delta)
        positions = torch.cat([positions, position], dim=-1)
        last = torch.tensor(new[-1:], device=model.device)
        embeds = torch.cat([embeds, model.embed(last)])
    return new
