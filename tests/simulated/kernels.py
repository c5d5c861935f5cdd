"""Triton's kernels: the interpreter runs them on the card's bytes, as work of the current stream."""

from __future__ import annotations

from typing import Any

import torch
from triton.runtime import interpreter

from tests.simulated import rooms
from tests.simulated.card import card

_plain = interpreter.GridExecutor.__call__


def launch(grid: Any, *args: Any, **kwargs: Any) -> None:
    """Stands for GridExecutor.__call__. A kernel may write to all that it is given."""
    given = list(rooms.tensors([args, kwargs]))
    if not any(each.is_cuda for each in given):
        _plain(grid, *args, **kwargs)
        return
    if any(not each.is_cuda for each in given):
        raise ValueError("Pointer argument cannot be accessed from Triton (cpu tensor?)")
    shown = {id(each): rooms.host(each) for each in given}

    def run() -> None:
        see = lambda each: shown[id(each)]
        _plain(grid, *rooms.mapped(args, see), **rooms.mapped(kwargs, see))

    uses = [rooms.use(each, writes=True) for each in given]
    with card.lock:
        card.settle()
        if card.recording is not None:
            card.recording.add(run, uses)
            return
        card.launch(uses, grid.fn.__name__)
        run()


def install() -> None:
    interpreter.GridExecutor.__call__ = launch
