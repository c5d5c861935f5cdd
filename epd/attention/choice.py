"""Which attention backend a worker takes, and why not another: by what each is capable of."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch

from epd.attention import kernels
from epd.attention.base import AttentionBackend
from epd.attention.sdpa import SdpaBackend
from epd.errors import ConfigError

log = logging.getLogger(__name__)

CHOICES = ("flash", "triton", "sdpa")
"""In the order in which "auto" tries them."""

_LEAST_DIM, _MOST_DIM = 16, 256
_HALVES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What attention has to work on. `capability` is the card's, (0, 0) without one."""

    device: torch.device
    dtype: torch.dtype
    head_dim: int
    block_size: int
    capability: tuple[int, int] = (0, 0)


def choose(name: str, wanted: Wanted) -> AttentionBackend[Any]:
    """The backend that the configuration calls `name`, or with "auto" the first that can do it.

    ConfigError: the named one cannot. The log says which it is and why none before it.
    """
    if name != "auto":
        if (reason := why_not(name, wanted)) is not None:
            raise ConfigError(f"language.attention is {name}: {reason}", param="language.attention")
        log.info("attention: %s, as configured", name)
        return _make(name, wanted)
    reasons: list[str] = []
    for each in CHOICES:
        # An interpreter is for tests, which ask for it by name.
        reason = why_not(each, wanted)
        if each != "sdpa" and wanted.device.type != "cuda":
            reason = f"it needs a CUDA device, this is {wanted.device.type}"
        if reason is None:
            log.info("attention: %s%s", each, "".join(f"; not {why}" for why in reasons))
            return _make(each, wanted)
        reasons.append(f"{each}: {reason}")
    raise AssertionError("sdpa is capable of everything")


def why_not(name: str, wanted: Wanted) -> str | None:
    """Why a backend cannot do what is wanted; None if it can."""
    if name == "sdpa":
        return None
    if (reason := kernels.why_not(wanted.device)) is not None:
        return reason
    return _why_not_triton(wanted) if name == "triton" else _why_not_flash(wanted)


def flash_version(wanted: Wanted) -> int | None:
    """3 on Hopper where it is installed, else 2 where it is."""
    from epd.attention.flash import installed

    if wanted.capability[0] == 9 and installed(3):
        return 3
    return 2 if installed(2) else None


def _make(name: str, wanted: Wanted) -> AttentionBackend[Any]:
    if name == "sdpa":
        return SdpaBackend()
    if name == "triton":
        from epd.attention.triton import TritonBackend

        return TritonBackend()
    from epd.attention.flash import FlashBackend

    version = flash_version(wanted)
    assert version is not None
    return FlashBackend(version)


def _why_not_triton(wanted: Wanted) -> str | None:
    dim = wanted.head_dim
    if not _LEAST_DIM <= dim <= _MOST_DIM or dim % 2:
        return f"heads of {dim} values, it takes even numbers from {_LEAST_DIM} to {_MOST_DIM}"
    if wanted.dtype not in (*_HALVES, torch.float32):
        return f"it does not compute in {wanted.dtype}"
    if wanted.dtype is torch.bfloat16 and (0, 0) < wanted.capability < (8, 0):
        return f"bfloat16 needs compute capability 8.0, this card has {_number(wanted)}"
    return None


def _why_not_flash(wanted: Wanted) -> str | None:
    from epd.attention.flash import PAGE_TOKENS

    if (version := flash_version(wanted)) is None:
        return "flash-attn is not installed"
    if wanted.dtype not in _HALVES:
        return f"it computes in float16 and bfloat16, not in {wanted.dtype}"
    if wanted.capability < (8, 0):
        return f"it needs compute capability 8.0, this card has {_number(wanted)}"
    if wanted.head_dim > _MOST_DIM or wanted.head_dim % 8:
        return f"heads of {wanted.head_dim} values, it takes multiples of 8 up to {_MOST_DIM}"
    if version == 2 and wanted.block_size % PAGE_TOKENS:
        size = wanted.block_size
        return (
            f"its pages are multiples of {PAGE_TOKENS} tokens; language.block_size is {size},"
            f" which leaves {size % PAGE_TOKENS}"
        )
    return None


def _number(wanted: Wanted) -> str:
    return ".".join(map(str, wanted.capability))
