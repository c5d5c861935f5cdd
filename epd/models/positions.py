"""Rotary positions of a whole prompt, from its layouts alone: the same code for every family."""

from __future__ import annotations

import numpy as np
import torch

from epd.errors import InternalError
from epd.models import mrope
from epd.types import ItemLayout, Prompt


def prompt_positions(prompt: Prompt, *, axes: int) -> tuple[torch.Tensor, float]:
    """Positions [3, T] (`axes` 3) or [T] (1), float64 on the CPU, and the delta.

    The token at index i >= T of the sequence stands at position i + delta: generated text goes on
    where the prompt's text ended, as in `generate()`, though a long video may reach further in
    time. So a prompt that ends with what was generated before has the same positions again.
    """
    if axes == 1:
        return torch.arange(prompt.num_tokens, dtype=torch.float64), 0.0
    parts: list[mrope.Positions] = []
    at = 0.0
    for i, text in enumerate(prompt.text):
        parts.append(mrope.text(len(text)) + at)
        at += len(text)
        if i < len(prompt.items):
            positions, advance = _of_item(prompt.items[i].layout)
            parts.append(positions + at)
            at += advance
    positions = np.concatenate(parts, axis=1)
    return torch.from_numpy(positions), at - positions.shape[1]


def _of_item(layout: ItemLayout) -> tuple[mrope.Positions, float]:
    num_tokens = len(layout.token_ids)
    if not layout.positions:
        return mrope.text(num_tokens), num_tokens
    positions = np.frombuffer(layout.positions, dtype="<f4")
    if len(positions) != 3 * num_tokens or layout.advance < 1:
        raise InternalError(
            f"prefill: a layout of {num_tokens} tokens with {len(positions)} positions"
        )
    return positions.reshape(3, -1).astype(np.float64), layout.advance
