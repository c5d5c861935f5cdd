"""CUDA's streams on the CPU: what a stream is asked for waits until the test runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from tests.transfer import gpu


class CardStream(gpu.Stream):
    """At the interface of torch's."""

    def __init__(self, world: gpu.World) -> None:
        super().__init__(world)
        self._world = world

    def wait_stream(self, other: CardStream) -> None:
        self.todo.append(other.record(self._world))


class CardEvent:
    """At the interface of torch's."""

    def __init__(self, world: gpu.World) -> None:
        self._world = world

    def record(self, stream: CardStream) -> None:
        self._happens = stream.record(self._world)

    def synchronize(self) -> None:
        self._happens.wait()


class Card(TorchFunctionMode):
    """Stands for torch.cuda; while it is entered, copies that nothing waits for are in its streams.

    `ours` is the current stream. `used`: who was told to be using which memory, by its address.
    With `streams`, there are no more than so many beside it.
    """

    def __init__(self, *, streams: int | None = None) -> None:
        super().__init__()
        self.world = gpu.World()
        self.ours = CardStream(self.world)
        self.used: list[tuple[int, CardStream]] = []
        self._current = self.ours
        self._others: list[CardStream] = []
        self._most = streams

    def Stream(self, device: torch.device) -> CardStream:
        if self._most is None or len(self._others) < self._most:
            self._others.append(CardStream(self.world))
        return self._others[-1]

    def Event(self) -> CardEvent:
        return CardEvent(self.world)

    def current_stream(self, device: torch.device) -> CardStream:
        return self._current

    @contextmanager
    def stream(self, stream: CardStream) -> Iterator[None]:
        before, self._current = self._current, stream
        yield
        self._current = before

    def record_stream(self, tensor: torch.Tensor, stream: CardStream) -> None:
        """In place of torch.Tensor's own, which no mode sees."""
        self.used.append((tensor.data_ptr(), stream))

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs.pop("pin_memory", None)
        if not kwargs.pop("non_blocking", False):
            return func(*args, **kwargs)
        to, source = (torch.zeros_like(args[0]), args[0]) if func is torch.Tensor.to else args
        self._current.todo.append(lambda: to.copy_(source))
        return to
