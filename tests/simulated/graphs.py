"""Graphs: what a stream is asked for is written down instead of done, and done at every replay."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import torch

from tests.simulated import rooms
from tests.simulated.card import card
from tests.simulated.operators import Call, _check, _views, _looks_up, WAITING, FRESH
from tests.simulated.order import Use


class Graph:
    """At the interface of torch.cuda.CUDAGraph. What was recorded lies where it lay."""

    def __init__(self, keep_graph: bool = False) -> None:
        self._steps: list[Callable[[], None]] = []
        self._uses: list[Use] = []
        self._kept: list[Any] = []

    def note(self, call: Call) -> Any:
        """An operator -> results that hold nothing before the first replay."""
        if call.op in WAITING or _looks_up(call):
            card.synchronize(call.name)
        _check(call)
        call.spare()
        out = rooms.mapped(call.compute(), lambda made: self._named(call, made))
        self._kept.append((call.given, out))
        if not _views(call.op) and call.op not in FRESH:
            self.add(lambda: _again(call, out), call.uses())
        return out

    @staticmethod
    def _named(call: Call, made: torch.Tensor) -> torch.Tensor:
        shared = {each.untyped_storage().data_ptr() for each in map(call.shown, call.given)}
        return call.named(made, fresh=made.untyped_storage().data_ptr() not in shared)

    def add(self, step: Callable[[], None], uses: list[Use]) -> None:
        """Something to do at every replay."""
        self._steps.append(step)
        self._uses += uses

    def replay(self) -> None:
        with card.lock:
            card.settle()
            if card.recording is not None:
                raise RuntimeError("a replay while another graph is recorded")
            for step in self._steps:
                step()
            card.launch(set(self._uses), "replay")

    def pool(self) -> tuple[int, int]:
        return (0, 0)

    def reset(self) -> None:
        self._steps.clear()


def _again(call: Call, out: Any) -> None:
    fresh = Call(call.op, call.args, call.kwargs)
    made = list(rooms.tensors(fresh.compute()))
    for place, result in zip(rooms.tensors(out), made, strict=True):
        if not any(place is each for each in call.given):
            rooms.host(place).copy_(result)


@contextmanager
def graph(cuda_graph: Graph, pool: Any = None, stream: Any = None, capture_error_mode: str = ""):
    """At the interface of torch.cuda.graph."""
    with card.lock:
        card.wait_for_all()  # as torch does it
    with card.on(stream.stream_id if stream is not None else card.new_stream()):
        card.recording = cuda_graph
        try:
            yield
        finally:
            card.recording = None
