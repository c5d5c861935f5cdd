"""Launches of Triton's kernels and of flash-attn, counted without a card.

Kernels are neither compiled nor run: a launch says its name and what it takes and gives. Of tables
that a kernel looks into, it counts what is read of them, which READ names.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch

PROCESSORS = 132
"""An H100's: how many parts a context is split into depends on them."""

READ = {
    "_decode": ("query", "keys", "values", "parts", "sums"),
    "_join": ("parts", "sums", "out"),
    "_prefill": ("query", "keys", "values", "out"),
    "_write": ("query", "query", "key", "key", "value", "value"),
    "_peaks": ("logits", "marks", "peaks", "sums"),
    "_best": ("peaks", "sums"),
    "_edge": ("peaks",),
    "_sums": ("logits", "marks", "sums"),
    "_walk": ("sums",),
}
"""Of kernels that do not touch every tensor once. Pages hold the contexts of the step and no more;
a written key or value is read and written. Blocks of logits that end top_p are too few to count."""

Add = Callable[..., None]
"""A launch's name and the tensors that it moves."""


@contextmanager
def as_on_a_card(add: Add) -> Iterator[None]:
    """Kernels seem to run, on any device, and are handed to `add` instead."""
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    from epd.attention import kernels

    def run(self: Any, *args: Any, **kwargs: Any) -> None:
        names = dict(zip(self.arg_names, args, strict=False)) | kwargs
        name = self.fn.__name__
        taken = READ.get(name, tuple(names))
        add(name, *(names[each] for each in taken if isinstance(names[each], torch.Tensor)))

    with (
        patch.object(JITFunction, "run", run),
        patch.object(InterpretedFunction, "run", run),
        patch.object(kernels, "why_not", lambda device: None),
        patch.object(kernels, "compiled", lambda device: True),
        patch.object(kernels, "processors", lambda device: PROCESSORS),
    ):
        yield


@contextmanager
def flash_attn(add: Add) -> Iterator[None]:
    """A module of this name whose functions are one launch each."""

    def attend(
        query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, *_: Any, **__: Any
    ) -> torch.Tensor:
        out = torch.empty_like(query)
        add("attention", query, keys, values, out)
        return out

    module = ModuleType("flash_attn")
    module.__dict__.update(flash_attn_with_kvcache=attend, flash_attn_varlen_func=attend)
    with patch.dict(sys.modules, {"flash_attn": module}):
        yield
