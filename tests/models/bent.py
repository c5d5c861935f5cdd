"""Checkpoints in which nothing can be left out unseen, and how far results are from right ones."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def bend_vectors(file: Path) -> None:
    """Random models have biases of 0 and norms of 1, which would hide what is left out."""
    torch.manual_seed(5)
    weights = load_file(file)
    for weight in weights.values():
        if weight.dim() == 1:
            weight += 0.3 * torch.randn_like(weight)
    save_file(weights, file, {"format": "pt"})


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative to all of what is expected."""
    return float((found - expected).norm() / expected.norm())
