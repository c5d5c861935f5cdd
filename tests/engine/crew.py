"""Ranks that are threads of this process, at the interface of those that are processes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue

import torch

from epd.engine.decode_graphs import Capture
from epd.engine.ranks.following import Follower
from epd.engine.ranks.leading import LedModel
from epd.engine.ranks.orders import Order, from_row, to_row
from epd.engine.ranks.tasks import Tasks
from epd.models.language import LanguageModel, load_language
from epd.models.spec import Checkpoint
from epd.workers.rank_ends import RankEnds, Tell
from tests.engine.recorded import FixedSdpa

WAIT_S = 60.0
LOOK_S = 0.001

_LOADING = threading.Lock()
"""Loading changes what is global in transformers: processes do it at once, threads cannot."""


class Meeting:
    """What all ranks of a crew put down, and take once everybody has."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.put: list[Sequence[torch.Tensor]] = [()] * size
        self.barrier = threading.Barrier(size, timeout=WAIT_S)


class ThreadGroup:
    """One rank of a crew."""

    def __init__(self, rank: int, meeting: Meeting) -> None:
        self.rank, self.size = rank, meeting.size
        self._meeting = meeting

    def _exchange(self, *values: torch.Tensor) -> list[Sequence[torch.Tensor]]:
        self._meeting.put[self.rank] = [value.clone() for value in values]
        self._meeting.barrier.wait()
        found = list(self._meeting.put)
        self._meeting.barrier.wait()
        return found

    def add_up(self, values: torch.Tensor) -> None:
        values.copy_(torch.stack([part for (part,) in self._exchange(values)]).sum(0))

    def share(self, values: torch.Tensor) -> None:
        values.copy_(self._exchange(values)[0][0])

    def gather(self, part: torch.Tensor) -> list[torch.Tensor]:
        found = [part for (part,) in self._exchange(part)]
        return found if self.rank == 0 else []

    def scatter(self, parts: Sequence[torch.Tensor], into: torch.Tensor) -> None:
        into.copy_(self._exchange(*parts)[0][self.rank])


@contextmanager
def led_model(
    checkpoint: Checkpoint,
    size: int,
    ends: Callable[[int, Tell], RankEnds] | None = None,
    capture: Capture | None = None,
) -> Iterator[LedModel]:
    """A model on `size` ranks; rank 0 is the caller's thread. `ends` are the others', from their
    numbers and what hears their answers; `capture` records their steps."""
    meeting = Meeting(size)
    tasks = Tasks(size - 1)
    queues: list[SimpleQueue[list[int] | None]] = [SimpleQueue() for _ in range(1, size)]
    threads = [
        threading.Thread(
            target=_follow,
            args=(checkpoint, rank, meeting, queue, ends and ends(rank, tasks.answered), capture),
        )
        for rank, queue in enumerate(queues, 1)
    ]
    for thread in threads:
        thread.start()

    def send(order: Order) -> None:
        for queue in queues:
            queue.put(to_row(order))

    group = ThreadGroup(0, meeting)
    try:
        part = _load(checkpoint, group)
        yield LedModel(part, group, send, tasks)
    finally:
        for queue in queues:
            queue.put(None)
        for thread in threads:
            thread.join(WAIT_S)


def _load(checkpoint: Checkpoint, group: ThreadGroup) -> LanguageModel:
    with _LOADING:
        return load_language(checkpoint, device="cpu", dtype="float32", group=group)


def _follow(
    checkpoint: Checkpoint,
    rank: int,
    meeting: Meeting,
    queue: SimpleQueue[list[int] | None],
    ends: RankEnds | None,
    capture: Capture | None,
) -> None:
    try:
        group = ThreadGroup(rank, meeting)
        part = _load(checkpoint, group)
        Follower(part, group, FixedSdpa(), ends, capture).follow(_orders(queue, ends))
    except BaseException:
        meeting.barrier.abort()
        raise


def _orders(queue: SimpleQueue[list[int] | None], ends: RankEnds | None) -> Iterator[Order]:
    """As they come; between them what the ends wait for."""
    while True:
        waits = ends is not None and ends.waits
        with suppress(Empty):
            row = queue.get(timeout=LOOK_S if waits else None)
            if row is None:
                return
            yield from_row(row)
        if ends is not None:
            ends.settle()
