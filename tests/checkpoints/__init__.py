"""Tiny random checkpoints for tests, one builder per family, offline.

They load through the ordinary `from_pretrained` path: the product has no branch for them.
"""

from __future__ import annotations

from pathlib import Path

from epd.models.random_checkpoint import build_random_checkpoint


def build(family: str, path: Path) -> Path:
    """Write the family's tiny checkpoint into the folder `path` and return it."""
    if family != "qwen2_5_vl":
        raise ValueError(f"no test checkpoint for family {family!r}; there is: qwen2_5_vl")
    return build_random_checkpoint(path)
