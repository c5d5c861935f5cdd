"""Triton's kernels: the interpreter runs them on the card's bytes, as work of a stream."""

from __future__ import annotations

from typing import Any

from triton.runtime import interpreter

from tests.simulated import rooms
from tests.simulated.card import card

_plain: Any = interpreter.GridExecutor.__call__


def launch(grid: Any, *args: Any, **kwargs: Any) -> None:
    """Stands for GridExecutor.__call__. A kernel may write to all that it is given."""
    given = list(rooms.tensors([args, kwargs]))
    if not any(each.is_cuda for each in given):
        _plain(grid, *args, **kwargs)
        return
    if not all(each.is_cuda for each in given):
        raise ValueError("Pointer argument cannot be accessed from Triton (cpu tensor?)")
    shown = {id(each): rooms.host(each) for each in given}
    args, kwargs = rooms.mapped((args, kwargs), lambda each: shown[id(each)])
    uses = [rooms.use(each, writes=True) for each in given]
    with card.lock:
        card.settle()
        if card.recording is not None:
            card.recording.add(lambda: _plain(grid, *args, **kwargs), uses)
            return
        card.launch(uses, grid.fn.__name__)
        _plain(grid, *args, **kwargs)


def install() -> None:
    """For this process."""
    executor: Any = interpreter.GridExecutor
    executor.__call__ = launch
