"""Checkpoints whose weights are stored in fewer bits: which are read, and how.

Fine-grained FP8, as Qwen and DeepSeek publish it: of a weight [out, in] in float8_e4m3fn every
block has a factor, `weight_scale_inv` [out / rows, in / columns]. Weights become the compute
dtype's when they are loaded, in transformers' own conversion: products need no kernel then, and
weights take the memory that they would take unquantised.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from epd.errors import ConfigError, UnsupportedModel
from epd.models.fingerprint import weight_headers

SCALES: Final = "_scale_inv"
"""How the names of factors end."""

_FP8: Final = "F8_E4M3"
_FACTORS: Final = ("F32", "BF16", "F16")


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
    usual = (
        isinstance(block, list) and len(block) == 2 and found.get("scale_fmt", "float") == "float"
    )
    if not usual or found.get("expert_dtype", "fp8") != "fp8":
        raise UnsupportedModel(
            f"{folder} is quantised with fp8, weight_block_size {block}; supported are blocks of "
            "rows and columns with factors in floating point"
        )


def plain_options(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What `from_pretrained` needs to be told so that all weights come out plain. Reads headers.

    transformers takes the size of a block from the shapes of a weight and its factors, and would
    scale a weight wrongly whose last block is cut off: ConfigError names one.
    """
    found = quantisation(config)
    if found is None:
        return {}
    _check_blocks(folder, *found["weight_block_size"])
    from transformers import FineGrainedFP8Config

    whole = found.get("modules_to_not_convert") or found.get("ignored_layers")
    return {
        "quantization_config": FineGrainedFP8Config(
            weight_block_size=tuple(found["weight_block_size"]),
            modules_to_not_convert=whole,
            dequantize=True,
        )
    }


def _check_blocks(folder: Path, rows: int, columns: int) -> None:
    entries = {name: entry for header in weight_headers(folder) for name, entry in header.items()}
    for name, entry in entries.items():
        if entry.get("dtype") != _FP8:
            continue
        factors = entries.get(f"{name}{SCALES}")
        if factors is None or factors["dtype"] not in _FACTORS:
            raise ConfigError(f"{folder}: {name} is in fp8 and has no factors in floating point")
        for size, block, num in zip(
            entry["shape"], (rows, columns), factors["shape"], strict=False
        ):
            if num != -(-size // block) or (num > 1 and size % block):
                raise ConfigError(
                    f"{folder}: {name} {entry['shape']} has factors {factors['shape']}, which are "
                    f"not one for each whole block of {rows} x {columns}"
                )
