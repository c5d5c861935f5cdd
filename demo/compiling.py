"""Layers compiled for training, which takes a third off a step."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from functools import cache, wraps
from typing import Any, TypeVar

import torch

# Else it would find PyTorch's fused attention in ours, see demo/attention.py.
_OPTIONS: dict[str, str | int | bool | Callable[..., Any]] = {"pattern_matcher": False}
_Value = TypeVar("_Value")


class Compiling:
    """Whether layers are: not unless somebody says so, for it takes a minute."""

    wanted = False

    @property
    def on(self) -> bool:
        return self.wanted and bool(shutil.which("g++") or shutil.which("clang++"))


COMPILING = Compiling()


def compiled(layer: Callable[..., _Value]) -> Callable[..., _Value]:
    """`layer`, compiled at its first call with each set of shapes."""

    @cache
    def faster() -> Callable[..., _Value]:
        return torch.compile(layer, dynamic=False, options=_OPTIONS) if COMPILING.on else layer

    @wraps(layer)
    def run(*args: Any) -> _Value:
        return faster()(*args)

    return run


def compile_in_place(layers: Iterable[torch.nn.Module]) -> None:
    """As `compiled`, for modules that others call."""
    if COMPILING.on:
        for layer in layers:
            layer.compile(dynamic=False, options=_OPTIONS)
