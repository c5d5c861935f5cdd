"""Checkpoints whose weights are stored in fewer bits: which are read, and how.

Fine-grained FP8, as Qwen and DeepSeek publish it: of a weight [..., out, in] in float8_e4m3fn every
block of rows and columns has a factor, `NAME_scale_inv`. A weight becomes the compute dtype's when
transformers reads it, before any of its conversions: products need no kernel then, and weights take
the memory that they would take unquantised.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch

from epd.errors import ConfigError
from epd.models.fingerprint import weight_headers
from epd.models.storage import SCALES, quantisation

_FP8: Final = "F8_E4M3"
_FACTORS: Final = ("F32", "BF16", "F16")


class Blocks:
    """One weight in FP8 that is plain once it is read, as transformers reads a slice of a file.

    `weight` and `factors` are slices of files; nothing is read before.
    """

    def __init__(self, weight: Any, factors: Any, block: tuple[int, int]) -> None:
        self._weight = weight
        self._factors = factors
        self._block = block

    def __getitem__(self, place: Any) -> torch.Tensor:
        """The part at `place`, in float32. The last blocks may be cut off."""
        weight: torch.Tensor = self._weight[...].float()
        factors: torch.Tensor = self._factors[...].float()
        rows, columns = weight.shape[-2:]
        spread = factors.repeat_interleave(self._block[0], -2)[..., :rows, :]
        spread = spread.repeat_interleave(self._block[1], -1)[..., :columns]
        part: torch.Tensor = weight.mul_(spread)[place]
        return part


def plain_options(part: Any, config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What `from_pretrained` of the class `part` is told so that all weights come out plain.

    ConfigError names a weight whose factors do not fit.
    """
    found = quantisation(config)
    if found is None:
        return {}
    rows, columns = found["weight_block_size"]
    _check_blocks(folder, rows, columns)
    settings = part.config_class.from_pretrained(folder, local_files_only=True)
    for section in (settings, settings.get_text_config()):
        if hasattr(section, "quantization_config"):
            del section.quantization_config
    return {"config": settings, "state_dict": _weights(folder, (rows, columns))}


def _weights(folder: Path, block: tuple[int, int]) -> dict[str, Any]:
    from safetensors import safe_open

    slices: dict[str, Any] = {}
    for file in sorted(folder.glob("*.safetensors")):
        opened: Any = safe_open(file, framework="pt")
        slices |= {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
    return {
        name: Blocks(weight, slices[f"{name}{SCALES}"], block)
        if f"{name}{SCALES}" in slices
        else weight
        for name, weight in slices.items()
        if not name.endswith(SCALES)
    }


def _check_blocks(folder: Path, rows: int, columns: int) -> None:
    entries = {name: entry for header in weight_headers(folder) for name, entry in header.items()}
    for name, entry in entries.items():
        if entry.get("dtype") != _FP8:
            continue
        factors = entries.get(f"{name}{SCALES}")
        if factors is None or factors["dtype"] not in _FACTORS:
            raise ConfigError(f"{folder}: {name} is in fp8 and has no factors in floating point")
        *experts, out, inside = entry["shape"]
        if factors["shape"] != [*experts, -(-out // rows), -(-inside // columns)]:
            raise ConfigError(
                f"{folder}: {name} {entry['shape']} has factors {factors['shape']}, which are not "
                f"one for each block of {rows} x {columns}"
            )
