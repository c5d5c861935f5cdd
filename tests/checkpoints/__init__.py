"""Tiny random checkpoints for tests, one per family, offline.

They load through the ordinary `from_pretrained` path: the product has no branch for them.
"""

from __future__ import annotations

from pathlib import Path

from epd.models.random_checkpoint import TINY, Sizes, build_random_checkpoint

FAMILIES = ("qwen2_5_vl", "qwen3_vl")
SIZES = {"qwen3_vl": Sizes(head_dim=32)}  # heads wider than hidden / heads


def build(family: str, path: Path) -> Path:
    """Write the family's tiny checkpoint into the folder `path` and return it."""
    return build_random_checkpoint(path, family=family, sizes=SIZES.get(family, TINY))
