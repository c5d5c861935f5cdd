"""Checkpoints whose weights are stored in fewer bits: which are read, and how.

Fine-grained FP8, as Qwen and DeepSeek publish it: of a weight [..., out, in] in float8_e4m3fn every
block of rows and columns has a factor, `NAME_scale_inv`. Linear modules and experts may keep both.
Any other weight becomes the compute dtype's when transformers reads it, before any of its
conversions: products need no kernel then, and weights take the memory they would take unquantised.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from epd.errors import ConfigError
from epd.models.block_products import has_block_kind, replace_with_blocks
from epd.models.fingerprint import weight_headers
from epd.models.storage import FP8, SCALES

Fits = Callable[[str], bool]
"""Can the weight of this name in a model stay in FP8 on every rank?"""

_FACTORS: Final = ("F32", "BF16", "F16")
_GATE_UP, _DOWN = "gate_up_proj", "down_proj"
_EXPERT: Final = re.compile(r"(.+\.experts)\.(\d+)\.(gate|up|down)_proj\.weight")


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


class Stacked:
    """A weight of all experts, read as Blocks are, where files have one of each expert.

    `parts` are slices of files: those of an expert lie side by side.
    """

    def __init__(self, parts: Sequence[Sequence[Any]]) -> None:
        self._parts = parts

    def __getitem__(self, place: Any) -> torch.Tensor:
        """The part at `place`, in the stored dtype."""
        experts = [torch.cat([slice_[...] for slice_ in expert]) for expert in self._parts]
        return torch.stack(experts)[place]


class Turned:
    """Matrices whose rows are columns in files, as transformers reads a slice of a file."""

    def __init__(self, matrices: Any) -> None:
        self._matrices = matrices

    def __getitem__(self, place: Any) -> torch.Tensor:
        """The part at `place`, in the stored dtype."""
        turned: torch.Tensor = self._matrices[...].mT.contiguous()
        return turned[place]


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

    def keep(self, model: Any, fits: Fits) -> None:
        """Let modules of a model on the meta device have their weights as they are stored.

        transformers reads `state` after this: it fills a model that it has built. What it makes of
        several stored weights becomes plain, but for experts'.
        """
        renamed = _names_in(model)
        small = [name for name, weight in self.state.items() if isinstance(weight, Blocks)]
        stored = {renamed(name): (name, parts) for name, parts in _sources(small).items()}
        for path, names in _keepable(model):
            if all(name in stored for name in names) and all(map(fits, names)):
                replace_with_blocks(model, path)
                for name in names:
                    self._keep(*stored[name], shape=model.get_parameter(name).shape)

    def join(self, model: Any) -> None:
        """Make one plain weight of experts' that files have one by one, for a model without a rule.

        transformers knows how to in most models; published Qwen3-VL's are joint, so not there.
        """
        renamed = _names_in(model)
        for name, parts in _sources(self.state).items():
            if parts != [[name]] and renamed(name) and not renamed(parts[0][0]):
                slices = [[self.state.pop(part) for part in expert] for expert in parts]
                self.state[name] = Stacked(slices)

    def _keep(self, name: str, parts: list[list[str]], *, shape: Sequence[int]) -> None:
        """`parts` are read as they are, under `name`; one alone is turned where it lies so."""
        gone = {part for expert in parts for part in expert}
        for part in gone:
            del self.state[part]
        turned = gone == {name} and list(self._slices[name].get_shape()) != list(shape)
        for end in ("", SCALES):
            slices = [[self._slices[f"{part}{end}"] for part in expert] for expert in parts]
            if turned:
                self.state[f"{name}{end}"] = Turned(slices[0][0])
            else:
                self.state[f"{name}{end}"] = slices[0][0] if gone == {name} else Stacked(slices)

    def options(self, part: Any) -> dict[str, Any]:
        """What `from_pretrained` of the class `part` is told, which then quantises nothing."""
        settings = part.config_class.from_pretrained(self._folder, local_files_only=True)
        for section in (settings, settings.get_text_config()):
            if hasattr(section, "quantization_config"):
                del section.quantization_config
        return {"config": settings, "state_dict": self.state}


def keep_unnamed(model: Any, fits: Fits, plain: Sequence[str]) -> None:
    """As Stored.keep() where there are no files: all that can be but modules of these names.

    `plain` is a configuration's modules_to_not_convert. Heads are plain in any case.
    """
    from transformers.quantizers.quantizers_utils import should_convert_module

    for path, names in _keepable(model):
        if should_convert_module(path, [*plain, "lm_head"]) and all(map(fits, names)):
            replace_with_blocks(model, path)


def _keepable(model: Any) -> list[tuple[str, list[str]]]:
    """Modules that there are with weights in FP8 too, and the names of those weights."""
    found = []
    for path, module in model.named_modules():
        if has_block_kind(module):
            weights = module.named_parameters(path, recurse=False)
            found.append((path, [name for name, weight in weights if weight.ndim > 1]))
    return found


def _sources(names: Iterable[str]) -> dict[str, list[list[str]]]:
    """What weights are made of: each itself, or of each expert what lies side by side."""
    found = {}
    experts: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in sorted(names):  # so gates come before what they gate
        if match := _EXPERT.fullmatch(name):
            root, number, kind = match.groups()
            joint = f"{root}.{_DOWN if kind == 'down' else _GATE_UP}"
            experts[joint][int(number)].append(name)
        else:
            found[name] = [[name]]
    for name, parts in experts.items():
        found[name] = [parts[number] for number in sorted(parts)]
    return found


def _slices(folder: Path) -> dict[str, Any]:
    from safetensors import safe_open

    slices: dict[str, Any] = {}
    for file in sorted(folder.glob("*.safetensors")):
        opened: Any = safe_open(file, framework="pt")
        slices |= {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
    return slices


def _names_in(model: Any) -> Callable[[str], str]:
    """A stored weight's name in the model, as transformers finds it; "" where it has none there.

    Neither have parts, of which transformers makes one weight; experts' it only turns.
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
        whole = part_of is None or found.endswith((f"experts.{_GATE_UP}", f"experts.{_DOWN}"))
        return found if found in there and whole else ""

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
