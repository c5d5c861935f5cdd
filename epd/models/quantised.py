"""Checkpoints whose weights are stored in fewer bits: which are read, and how.

Fine-grained FP8, as Qwen and DeepSeek publish it: of a weight [..., out, in] in float8_e4m3fn every
block of rows and columns has a factor, `NAME_scale_inv`. Linear modules may keep both. Any other
weight becomes the compute dtype's when transformers reads it, before any of its conversions:
products need no kernel then, and weights take the memory that they would take unquantised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from epd.errors import ConfigError
from epd.models.block_linear import BlockLinear
from epd.models.fingerprint import weight_headers
from epd.models.storage import FP8, SCALES

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


class Stored:
    """A checkpoint with weights in FP8. `state` is what transformers fills a model from.

    ConfigError names a weight whose factors do not fit.
    """

    def __init__(self, folder: Path, block: tuple[int, int]) -> None:
        _check_blocks(folder, block)
        self._folder = folder
        self._slices = _slices(folder)
        self.state = {
            name: Blocks(weight, self._slices[f"{name}{SCALES}"], block)
            if f"{name}{SCALES}" in self._slices
            else weight
            for name, weight in self._slices.items()
            if not name.endswith(SCALES)
        }

    def keep(self, model: Any) -> None:
        """Let linear modules of a model on the meta device have their weights as they are stored.

        transformers reads `state` after this: it fills a model that it has built. Weights that it
        makes of several stored ones, as those of experts, become plain.
        """
        renamed = _names_in(model)
        for name in [name for name, weight in self.state.items() if isinstance(weight, Blocks)]:
            path, _, leaf = renamed(name).rpartition(".")
            if leaf == "weight" and type(linear := model.get_submodule(path)) is nn.Linear:
                model.set_submodule(path, BlockLinear.in_place_of(linear))
                self.state |= {each: self._slices[each] for each in (name, f"{name}{SCALES}")}

    def options(self, part: Any) -> dict[str, Any]:
        """What `from_pretrained` of the class `part` is told, which then quantises nothing."""
        settings = part.config_class.from_pretrained(self._folder, local_files_only=True)
        for section in (settings, settings.get_text_config()):
            if hasattr(section, "quantization_config"):
                del section.quantization_config
        return {"config": settings, "state_dict": self.state}


def keep_unnamed(model: Any, plain: Sequence[str]) -> None:
    """As Stored.keep() where there are no files: all linear modules but those of these names.

    `plain` is a configuration's modules_to_not_convert. Heads are plain in any case.
    """
    from transformers.quantizers.quantizers_utils import should_convert_module

    for path, module in list(model.named_modules()):
        if type(module) is nn.Linear and should_convert_module(path, [*plain, "lm_head"]):
            model.set_submodule(path, BlockLinear.in_place_of(module))


def _slices(folder: Path) -> dict[str, Any]:
    from safetensors import safe_open

    slices: dict[str, Any] = {}
    for file in sorted(folder.glob("*.safetensors")):
        opened: Any = safe_open(file, framework="pt")
        slices |= {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
    return slices


def _names_in(model: Any) -> Callable[[str], str]:
    """A stored weight's name in the model, as transformers finds it; "" where it has none there.

    Neither have parts, of which transformers makes one weight.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    rules, there = get_model_conversion_mapping(model), model.state_dict()
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    prefix = model.base_model_prefix

    def renamed(name: str) -> str:
        found, part_of = rename_source_key(name, renamings, converters, prefix, there)
        if found not in there and name in there:
            found, part_of = name, None
        return found if found in there and part_of is None else ""

    return renamed


def _check_blocks(folder: Path, block: tuple[int, int]) -> None:
    rows, columns = block
    entries = {name: entry for header in weight_headers(folder) for name, entry in header.items()}
    for name, entry in entries.items():
        if entry.get("dtype") != FP8:
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
