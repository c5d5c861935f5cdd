"""How a checkpoint says that it stores weights, and which of that is read. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from epd.errors import UnsupportedModel

FP8: Final = "F8_E4M3"
"""What files call the dtype of such weights."""

SIDE: Final = 128
"""Rows and columns of the blocks that kernels take."""

FACTOR_BYTES: Final = 4
"""Of a block's factor, once it is loaded."""

_SUMMED: Final = {"o_proj", "down_proj"}
"""Modules whose inputs ranks divide, where it is outputs elsewhere."""

SCALES: Final = "_scale_inv"
"""How the names of FP8 blocks' factors end."""


def quantisation(config: dict[str, Any]) -> dict[str, Any] | None:
    """What a configuration says of how its weights are stored; None where they are plain."""
    for section in (config, config.get("text_config") or {}):
        if "quantization_config" in section:
            return dict(section["quantization_config"] or {})
    return None


def blocks_of(config: dict[str, Any]) -> tuple[int, int] | None:
    """Rows and columns that share a factor, where weights are in FP8; None where they are plain."""
    found = quantisation(config)
    return None if found is None else (found["weight_block_size"][0], found["weight_block_size"][1])


def why_plain(block: tuple[int, int], *, device: str, dtype: str, fused: bool = True) -> str | None:
    """Why all weights in FP8 become plain as they are loaded.

    None: those of linear modules and experts stay as they are, and are multiplied so, but for some
    of experts and ranks, see share_in_blocks().
    """
    if not device.startswith("cuda"):
        return f"the kernel needs a CUDA device, this is {device}"
    if find_spec("triton") is None:
        return "triton is not installed"
    if block != (SIDE, SIDE):
        return f"blocks are {block[0]} x {block[1]}, the kernel takes {SIDE} x {SIDE}"
    if dtype == "float32":
        return "float32 is asked for, and the kernel is for 16 bits"
    return None if fused else "language.fused is false"


def stays_small(entry: dict[str, Any]) -> bool:
    """Is this entry of a file's header a weight in FP8 of a linear module, or of experts?"""
    return entry.get("dtype") == FP8 and len(entry["shape"]) in (2, 3)


def share_in_blocks(
    name: str, shape: Sequence[int], ranks: int, inside: int | None
) -> tuple[int, int] | None:
    """What one of so many ranks has of a weight: values and blocks; None where it becomes plain.

    Parts must be whole blocks, and so must the gates of experts, which are `inside` wide, on one
    rank too: they lie in one weight with what they gate.
    """
    steps, (*experts, out, inner) = name.split("."), shape
    divided = inner if _SUMMED & set(steps) else out
    if "experts" in steps:
        divided = inside or 0
    elif ranks == 1:
        divided = 0
    if divided % (SIDE * ranks) or ("experts" in steps and not divided):
        return None
    blocks = math.prod(experts) * -(-out // SIDE) * -(-inner // SIDE)
    return math.prod(shape) // ranks, blocks // ranks


def refuse_quantisation(config: dict[str, Any], folder: Path) -> None:
    """UnsupportedModel names a way of storing weights that is not read here."""
    found = quantisation(config)
    if found is None:
        return
    method, block = found.get("quant_method"), found.get("weight_block_size")
    if method != "fp8":
        raise UnsupportedModel(
            f"{folder} is quantised with {method}; plain weights and fp8 in blocks are supported"
        )
    usual = isinstance(block, list) and len(block) == 2
    if not usual or found.get("scale_fmt", "float") != "float":
        raise UnsupportedModel(
            f"{folder} is quantised with fp8, weight_block_size {block}; supported are blocks of "
            "rows and columns with factors in floating point"
        )
