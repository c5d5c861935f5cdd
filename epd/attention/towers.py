"""Attention of towers over items of different sizes, laid end to end: one call for all of them.

transformers' towers hand over where each item ends only to an implementation with "flash" in its
name, and call any other once per item, or per window of one: thousands of small calls in a forward.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

import torch

from epd.attention import products
from epd.attention.staging import put

VARLEN: Final = "epd_flash_varlen"

_ENDS: Final = 4  # a tower has one or two lists of ends: of items, and of windows in them


class Kernel(Protocol):
    """Attention within each of the sequences that stand one after the other."""

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        ends: torch.Tensor,
        longest: int,
        scaling: float,
    ) -> torch.Tensor:
        """[T, heads, dim] three times, int32 [n + 1] on their device -> [T, heads, dim]."""


def varlen_kernel(device: torch.device, dtype: torch.dtype) -> Kernel | None:
    """torch's own flash attention, where it runs: half precision on a GPU from Ampere on. On a CPU
    that multiplies bfloat16, products of matrices."""
    if products.takes(device, dtype):
        return products.attend_varlen
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return None
    if torch.cuda.get_device_capability(device) < (8, 0):
        return None
    from torch.nn.attention.varlen import varlen_attn

    def attend(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        ends: torch.Tensor,
        longest: int,
        scaling: float,
    ) -> torch.Tensor:
        out = varlen_attn(query, key, value, ends, ends, longest, longest, scale=scaling)
        assert isinstance(out, torch.Tensor)
        return out

    return attend


def register_varlen(kernel: Kernel) -> None:
    """Make VARLEN known to transformers, with this kernel. May be called again."""
    from transformers import AttentionInterface

    AttentionInterface.register(VARLEN, _Varlen(kernel))


class _Varlen:
    """Called by every attention layer of a tower: [1, heads, T, dim] -> [1, T, heads, dim]."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        # Lists of ends that are on the device already: all layers of a forward bring the same.
        self._sent: deque[tuple[torch.Tensor, torch.Tensor]] = deque(maxlen=_ENDS)

    def __call__(
        self,
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        *,
        scaling: float,
        cu_seq_lens_q: torch.Tensor,
        max_length_q: int,
        **_: object,
    ) -> tuple[torch.Tensor, None]:
        assert attention_mask is None and query.shape[0] == 1
        q, k, v = (each[0].transpose(0, 1).contiguous() for each in (query, key, value))
        ends = self._on_device(cu_seq_lens_q, query.device)
        return self._kernel(q, k, v, ends, int(max_length_q), scaling)[None], None

    def _on_device(self, ends: torch.Tensor, device: torch.device) -> torch.Tensor:
        for known, sent in self._sent:
            if known is ends:
                return sent
        self._sent.append((ends, put(ends.to(torch.int32), device)))
        return self._sent[-1][1]


def takes_ends(module: Any) -> bool:
    """Whether this is an attention layer that is told where items end."""
    forward: Callable[..., Any] = type(module).forward
    names = forward.__code__.co_varnames[: forward.__code__.co_argcount]
    return "cu_seqlens" in names and hasattr(module, "config") and hasattr(module, "scaling")
