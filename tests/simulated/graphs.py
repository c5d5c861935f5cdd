"""Graphs: what a stream is asked for is written down instead of done, and done at every replay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from tests.simulated import rooms
from tests.simulated.calls import Call
from tests.simulated.card import card
from tests.simulated.order import Use


class Graph:
    """At the interface of torch.cuda.CUDAGraph. What was recorded stays where it lay."""

    def __init__(self, keep_graph: bool = False) -> None:
        self._steps: list[Callable[[], None]] = []
        self._uses: set[Use] = set()
        self._kept: list[Any] = []

    def note(self, call: Call) -> Any:
        """An operator -> results that hold nothing before the first replay."""
        call.spare()
        out = rooms.mapped(call.compute(), partial(_named, call))
        self._kept.append((call.given, out))
        if not call.views and not call.fresh:
            self.add(partial(_again, call, out), [*call.uses(), *call.new(out)])
        return out

    def add(self, step: Callable[[], None], uses: list[Use]) -> None:
        """Something to do at every replay."""
        self._steps.append(step)
        self._uses.update(uses)

    def replay(self) -> None:
        """All of it, as work of the current stream."""
        with card.lock:
            card.settle()
            if card.recording is not None:
                raise RuntimeError("a replay while another graph is recorded")
            for step in self._steps:
                step()
            card.launch(self._uses, "replay")

    def pool(self) -> tuple[int, int]:
        """Its memory, which is nobody else's here."""
        return (0, 0)

    def reset(self) -> None:
        """It can be replayed no more."""
        self._steps.clear()


def _named(call: Call, made: torch.Tensor) -> torch.Tensor:
    shared = {each.untyped_storage().data_ptr() for each in map(call.shown, call.given)}
    return call.named(made, fresh=made.untyped_storage().data_ptr() not in shared)


@torch.inference_mode()
def _again(call: Call, out: Any) -> None:
    made = rooms.tensors(Call(call.op, call.args, call.kwargs).compute())
    for place, result in zip(rooms.tensors(out), made, strict=True):
        if not any(place is each for each in call.given):
            rooms.host(place).copy_(result)


@contextmanager
def graph(
    cuda_graph: Graph, pool: Any = None, stream: Any = None, capture_error_mode: str = "global"
) -> Iterator[None]:
    """At the interface of torch.cuda.graph: what this thread asks for in here is recorded."""
    with card.lock:
        card.wait_for_all()  # as torch does it
    with card.on(stream.stream_id if stream is not None else card.new_stream()):
        card.recording = cuda_graph
        try:
            yield
        finally:
            card.recording = None
