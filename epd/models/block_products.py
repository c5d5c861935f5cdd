"""All products with weights that stay in FP8, whatever modules they are made in."""

from __future__ import annotations

import logging
from typing import Any, Final

import torch
from torch import nn

from epd.attention.kernels import capability
from epd.models.block_experts import BlockExperts, are_experts
from epd.models.block_linear import BlockLinear, has_units
from epd.models.spec import Checkpoint
from epd.models.storage import blocks_of, why_plain

log = logging.getLogger(__name__)

HEIGHTS: Final = (1, 8, 32, 64, 128)
"""Rows that are one each of the kinds that tiles() of the kernels tell apart."""


def has_block_kind(module: Any) -> bool:
    """Is there a module that computes the same with weights in FP8?"""
    return type(module) is nn.Linear or are_experts(module)


def replace_with_blocks(model: nn.Module, path: str) -> None:
    """Put it in the module's place, to be filled."""
    module = model.get_submodule(path)
    if isinstance(module, nn.Linear):
        model.set_submodule(path, BlockLinear.in_place_of(module))
    else:
        model.set_submodule(path, BlockExperts.in_place_of(module))


@torch.inference_mode()
def compile_products(model: nn.Module, dtype: torch.dtype) -> None:
    """Run each size of product under `model` once for every height of its tiles.

    A kernel is compiled when it is first launched, for seconds; no request should wait for that.
    """
    kinds = (BlockLinear, BlockExperts)
    modules = [module for module in model.modules() if isinstance(module, kinds)]
    for module in {(type(module), module.sizes): module for module in modules}.values():
        for rows in HEIGHTS:
            module.multiply(rows, dtype)


def keeps_blocks(checkpoint: Checkpoint, device: str, dtype: str, *, fused: bool) -> bool:
    """Do weights in FP8 stay so? The log says which, if there are any."""
    block = blocks_of(checkpoint.config)
    if block is None:
        return False
    why = why_plain(block, device=device, dtype=dtype, fused=fused)
    if why is not None:
        log.info("weights in fp8 are loaded as %s: %s", dtype, why)
        return False
    number = ".".join(map(str, capability(torch.device(device))))
    many = "fp8" if has_units(torch.device(device)) else dtype
    log.info("weights in fp8 stay so; compute capability %s: many rows in %s", number, many)
    return True
