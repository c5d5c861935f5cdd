"""Positions for rotary embeddings with three axes (time, height, width).

Text advances all three axes together. A grid starts where the text before it ended, spreads over
the axes, and the text after it goes on behind the grid's longer side.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from epd.errors import InternalError
from epd.types import ItemLayout, Prompt

ItemPositions = Callable[[ItemLayout], tuple[torch.Tensor, int]]
"""Layout -> ([3, tokens] int64 counted from 0, by how much the text after it advances)."""


def prompt_positions(prompt: Prompt, of_item: ItemPositions) -> tuple[torch.Tensor, int]:
    """Positions [3, T] of a whole prompt, and the delta of the tokens that follow it."""
    parts: list[torch.Tensor] = []
    at = 0
    for i, text in enumerate(prompt.text):
        parts.append(_text(at, len(text)))
        at += len(text)
        if i < len(prompt.items):
            positions, advance = of_item(prompt.items[i].layout)
            parts.append(positions + at)
            at += advance
    positions = torch.cat(parts, dim=1)
    num_tokens = positions.shape[1]
    highest = int(positions.max()) if num_tokens else -1
    return positions, highest + 1 - num_tokens


def grid_positions(layout: ItemLayout, merge_size: int) -> tuple[torch.Tensor, int]:
    """An item whose tokens are one merged grid in row-major order and nothing else."""
    if layout.grid_thw is None:
        raise InternalError(f"prefill: a layout of modality {layout.modality} without a grid")
    frames, height, width = layout.grid_thw
    height, width = height // merge_size, width // merge_size
    if len(layout.token_ids) != frames * height * width:
        raise InternalError(
            f"prefill: a layout of {len(layout.token_ids)} tokens for a grid of {layout.grid_thw}"
        )
    axes = [torch.arange(size) for size in (frames, height, width)]
    positions = torch.stack(torch.meshgrid(*axes, indexing="ij")).reshape(3, -1)
    return positions, max(height, width)


def _text(at: int, length: int) -> torch.Tensor:
    return torch.arange(at, at + length).expand(3, -1)
