"""Tiny random checkpoints for tests, one per family, offline.

They load through the ordinary `from_pretrained` path: the product has no branch for them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from epd.models.random_checkpoint import TINY, Sizes, build_random_checkpoint
from tests import timeseries
from tests.checkpoints import (
    internvl,
    llava,
    llava_next,
    llava_onevision,
    omni,
    qwen2_audio,
    qwen2_vl,
    qwen3_vl_moe,
)

FAMILIES = ("qwen2_5_vl", "qwen3_vl")
"""Those that stand for all others in tests of what does not depend on the family."""

BUILDERS: dict[str, Callable[[Path], Path]] = {
    "internvl": internvl.build,
    "llava": llava.build,
    "llava_next": llava_next.build,
    "llava_onevision": llava_onevision.build,
    "patch_series": timeseries.build,
    "qwen2_5_omni": omni.build_2_5,
    "qwen2_5_omni_inside": partial(omni.build_inside, family="qwen2_5_omni"),
    "qwen2_5_vl": partial(build_random_checkpoint, family="qwen2_5_vl", sizes=TINY),
    "qwen2_audio": qwen2_audio.build,
    "qwen2_vl": qwen2_vl.build,
    "qwen3_omni_moe": omni.build_3,
    "qwen3_omni_moe_inside": partial(omni.build_inside, family="qwen3_omni_moe"),
    # heads wider than hidden / heads
    "qwen3_vl": partial(build_random_checkpoint, family="qwen3_vl", sizes=Sizes(head_dim=32)),
    "qwen3_vl_moe": qwen3_vl_moe.build,
}


def build(family: str, path: Path) -> Path:
    """Write the family's tiny checkpoint into the folder `path` and return it."""
    return BUILDERS[family](path)
