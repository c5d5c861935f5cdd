"""The shortest generation loop over both halves: no cache, everything computed again per token."""

from __future__ import annotations

import torch

from epd.models.language import LanguageModel
from epd.models.towers import Prepared, Towers
from epd.types import Prompt
from tests.models import stand_in


def merged(
    model: LanguageModel, towers: Towers, asked: Prompt, items: list[Prepared]
) -> torch.Tensor:
    """Embeddings of the prompt with the towers' rows in their places."""
    embeds = model.embed(torch.tensor(asked.token_ids(), device=model.device))
    for at, rows in zip(asked.offsets, towers.encode(items), strict=True):
        embeds[at : at + len(rows)] = rows
    return embeds


def greedy(
    model: LanguageModel, embeds: torch.Tensor, positions: torch.Tensor, delta: int, num: int
) -> list[int]:
    """`num` tokens after a prompt of these embeddings and positions."""
    positions = positions.to(model.device)
    new: list[int] = []
    for _ in range(num):
        hidden = model.forward(embeds, positions, stand_in.Packed([len(embeds)]))
        new.append(int(model.logits(hidden[-1:]).argmax()))
        position = torch.full((3, 1), len(embeds) + delta, device=model.device)
        positions = torch.cat([positions, position], dim=1)
        last = torch.tensor(new[-1:], device=model.device)
        embeds = torch.cat([embeds, model.embed(last)])
    return new
