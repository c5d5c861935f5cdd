"""Weights in fine-grained FP8 made of plain ones, and checkpoints with them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

LARGEST = torch.finfo(torch.float8_e4m3fn).max
TOWERS = ("visual", "audio_tower")


def spread(factors: torch.Tensor, block: int, shape: torch.Size) -> torch.Tensor:
    """Each factor at all places of its block, of which the last may be cut off."""
    for dim in (-2, -1):
        factors = factors.repeat_interleave(block, dim).narrow(dim, 0, shape[dim])
    return factors


def quantised(weight: torch.Tensor, block: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight, or one of each expert, in blocks, and their factors."""
    rows, columns = weight.shape[-2:]
    padding = (0, -columns % block, 0, -rows % block)
    blocks = torch.nn.functional.pad(weight.float(), padding).unfold(-2, block, block)
    factors = blocks.unfold(-2, block, block).abs().amax((-2, -1)) / LARGEST
    small = weight.float() / spread(factors, block, weight.shape)
    return small.to(torch.float8_e4m3fn), factors


def dequantised(weight: torch.Tensor, factors: torch.Tensor, block: int) -> torch.Tensor:
    return weight.float() * spread(factors, block, weight.shape)


def _is_product(name: str, weight: torch.Tensor, towers: bool) -> bool:
    if set(TOWERS) & set(name.split(".")):
        return towers and weight.ndim == 2 and name.endswith(".weight") and "embed." not in name
    return name.endswith(("proj.weight", "experts.gate_up_proj", "experts.down_proj"))


def twins(path: Path, block: int, *, towers: bool = False) -> tuple[Path, Path]:
    """The checkpoint in FP8, and with the same weights written out. `towers`: theirs too."""
    small, plain = (path.parent / name for name in ("small", "plain"))
    shutil.copytree(path, small)
    shutil.copytree(path, plain)
    for file in path.glob("*.safetensors"):
        weights = load_file(file)
        written, out = {}, {}
        for name, weight in weights.items():
            written[name] = out[name] = weight
            if weight.ndim > 1 and _is_product(name, weight, towers):
                written[name], factors = quantised(weight, block)
                written[f"{name}_scale_inv"] = factors
                out[name] = dequantised(written[name], factors, block).to(weight.dtype)
        save_file(written, small / file.name, {"format": "pt"})
        save_file(out, plain / file.name, {"format": "pt"})
    config = json.loads((small / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": [block, block],
        "modules_to_not_convert": ["lm_head", *(() if towers else TOWERS)],
    }
    (small / "config.json").write_text(json.dumps(config))
    return small, plain
