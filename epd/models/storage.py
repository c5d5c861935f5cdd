"""How a checkpoint says that it stores weights, and which of that is read. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from epd.errors import UnsupportedModel

SCALES: Final = "_scale_inv"
"""How the names of FP8 blocks' factors end."""


def quantisation(config: dict[str, Any]) -> dict[str, Any] | None:
    """What a configuration says of how its weights are stored; None where they are plain."""
    for section in (config, config.get("text_config") or {}):
        if "quantization_config" in section:
            return dict(section["quantization_config"] or {})
    return None


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
