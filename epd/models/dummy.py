"""Weights that nobody trained: of a model's real shapes, made where they are used, no file read.

Every weight comes from its own generator, seeded with SEED and its name, so all who have a weight
of one model have the same one, bit for bit, on devices of the same kind.
"""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from epd.errors import ConfigError
from epd.models.shards import Shards
from epd.models.storage import SCALES

SEED = 0

SPREAD = 0.02
"""Standard deviation of weights where the configuration says none, as transformers has it."""


def dummy_part(
    part: Any, folder: Path, *, device: str, dtype: str, shards: Shards | None, **options: Any
) -> Any:
    """The model of class `part` with random weights. `options` go to the class's construction.

    Of a weight that is divided among ranks the whole is made first, one weight at a time.
    """
    model, spread = _on_meta(part, folder, dtype, **options)
    cuts = {} if shards is None else shards.cuts(model)
    for name, weight in list(model.named_parameters()):
        made = _random(name, weight, spread, device)
        if shards is not None:
            made = shards.take(cuts.get(name), made, name)
        _put(model, name, nn.Parameter(made, requires_grad=False))
    for name, buffer in list(model.named_buffers()):
        _put(model, name, torch.empty_like(buffer, device=device))
    model.tie_weights()
    model.initialize_weights()  # only buffers: what was made is marked
    return model


@cache
def dummy_shapes(whole: Any, folder: Path) -> dict[str, tuple[int, ...]]:
    """Of every weight of the model of class `whole`, by its name; tied ones once."""
    model, _ = _on_meta(whole, folder, "bfloat16")
    return {name: tuple(weight.shape) for name, weight in model.named_parameters()}


def _on_meta(part: Any, folder: Path, dtype: str, **options: Any) -> tuple[Any, float]:
    """The model without memory for weights, and the spread of those it should get."""
    from transformers import initialization

    try:
        config = part.config_class.from_pretrained(folder, local_files_only=True)
        with ExitStack() as stack:
            stack.enter_context(initialization.no_init_weights())
            stack.enter_context(torch.device("meta"))
            stack.enter_context(initialization.meta_device_safe_creation_ops())
            model = part._from_config(config, dtype=getattr(torch, dtype), **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"cannot build the model of {folder}: {error}") from error
    spread = getattr(config.get_text_config(), "initializer_range", None)
    return model, SPREAD if spread is None else float(spread)


def _random(name: str, weight: torch.Tensor, spread: float, device: str) -> torch.Tensor:
    """Factors of norms are one, so that values stay finite through any number of layers."""
    made = torch.empty(weight.shape, dtype=weight.dtype, device=device)
    if weight.ndim == 1 and name.endswith("weight"):
        return made.fill_(1.0)
    if name.endswith(SCALES):
        return made.fill_(spread)  # of what is spread by one
    if weight.dtype is torch.float8_e4m3fn:
        made, spread = torch.empty(weight.shape, device=device), 1.0
    generator = torch.Generator(device)
    digest = hashlib.sha256(f"{SEED} {name}".encode()).digest()
    generator.manual_seed(int.from_bytes(digest[:8], "little", signed=True))
    return made.normal_(0.0, spread, generator=generator).to(weight.dtype)


def _put(model: nn.Module, name: str, value: torch.Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    owner = model.get_submodule(path)
    if isinstance(value, nn.Parameter):
        value._is_hf_initialized = True  # type: ignore[attr-defined]
        setattr(owner, leaf, value)
    else:
        owner._buffers[leaf] = value
