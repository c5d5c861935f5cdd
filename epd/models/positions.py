"""Rotary positions of a whole prompt, from its layouts alone: the same code for every family."""

from __future__ import annotations

import numpy as np
import torch

from epd.errors import InternalError
from epd.models import mrope
from epd.types import ItemLayout, Prompt


def prompt_positions(prompt: Prompt, *, axes: int) -> tuple[torch.Tensor, float]:
    """Positions [3, T] (`axes` 3) or [T] (1), float64 on the CPU, and the delta.

    The token at index i >= T of the sequence stands at position i + delta.
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
    num_tokens = positions.shape[1]
    return torch.from_numpy(positions), float(positions.max(initial=-1)) + 1 - num_tokens


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
