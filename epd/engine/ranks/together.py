"""A decode step on all ranks at once, without an order inside: what each of them can record."""

from __future__ import annotations

from typing import Any

import torch

from epd.engine.language import LanguageModel
from epd.models.group import Group


def together(
    part: LanguageModel, group: Group, embeds: torch.Tensor, positions: torch.Tensor, plan: Any
) -> torch.Tensor:
    """Logits [n, vocab] on rank 0; nothing that counts elsewhere.

    `embeds` [n, hidden] are rank 0's, and become so on the others. `part` computes its own logits,
    or, where the vocabulary cannot be divided, rank 0 computes all.
    """
    group.share(embeds)
    hidden = part.forward(embeds, positions, plan)
    if part.vocab_size % group.size:
        return part.logits(hidden) if group.rank == 0 else hidden
    parts = group.gather(part.logits(hidden).contiguous())
    return torch.cat(parts, -1) if group.rank == 0 else hidden
