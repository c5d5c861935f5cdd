"""Our Triton kernels: attention over pages, and the small passes between matrix products.

Only functions here import triton; where it is not installed, nothing else notices. In Triton's
interpreter the same code runs on CPU tensors, which is how it is tested without a card. There
arithmetic in bfloat16 is wrong, so kernels widen what they load to float32: elementwise ones
always, matrix products where WIDE says so, because a card multiplies 16 bits many times faster.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch


def interpreted() -> bool:
    """Do kernels run in Triton's interpreter, on the CPU, slowly?"""
    if find_spec("triton") is None:
        return False
    from triton import knobs

    return bool(knobs.runtime.interpret)


def why_not(device: torch.device) -> str | None:
    """Why kernels cannot run on this device; None if they can."""
    if find_spec("triton") is None:
        return "triton is not installed"
    if device.type == "cuda" or interpreted():
        return None
    return f"it needs a CUDA device, this is {device.type}"


def compiled(device: torch.device) -> bool:
    """Do kernels run on this device, and as what a card executes?"""
    return device.type == "cuda" and why_not(device) is None


@cache
def processors(device: torch.device) -> int:
    """Multiprocessors of the card; a few in the interpreter."""
    if device.type != "cuda":
        return 2
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


@cache
def capability(device: torch.device) -> tuple[int, int]:
    """Compute capability of a card; (0, 0) of what is none."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)


def power_of_two(number: int, least: int = 1) -> int:
    """The smallest one that is no less than either: the only sizes that a tile may have."""
    return 1 << (max(number, least) - 1).bit_length()


def dense(vectors: torch.Tensor) -> torch.Tensor:
    """The same with its last dimension contiguous, as kernels read vectors."""
    return vectors if vectors.stride(-1) == 1 else vectors.contiguous()
