"""Tensors that are sent to a device, seen on a CPU, where none goes anywhere."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

ROOT = Path(__file__).parents[1]


class Sends(TorchFunctionMode):
    """While it is entered: lines of a folder that send a tensor, `waiting` for it or `not_waiting`.

    To a GPU from memory that is not pinned torch waits anyway, so put() is who pins.
    """

    def __init__(self, folder: str = "epd") -> None:
        super().__init__()
        self.waiting: list[str] = []
        self.not_waiting: list[str] = []
        self._folder = ROOT / folder

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        frame = sys._getframe(1)
        file = Path(frame.f_code.co_filename)
        given = (*args, *kwargs.values())
        sent = func is torch.Tensor.to and any(isinstance(each, torch.device) for each in given)
        if sent and file.is_relative_to(self._folder):
            line = f"{file.name}:{frame.f_lineno}"
            (self.not_waiting if kwargs.get("non_blocking") else self.waiting).append(line)
        return func(*args, **kwargs)
