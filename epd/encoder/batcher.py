"""Which items share a tower forward. Pure: costs in, batches out.

In the order of a policy, within a count of items and of patches; an item over the patch limit runs
alone. A batch that failed is taken again in smaller groups before anything new.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from epd.encoder.waiting import Policy, Waiting
from epd.types import ItemKey

T = TypeVar("T")


class Try(Enum):
    """How often the items of a batch have been tried together."""

    FIRST = "first"
    HALVED = "halved"  # after the device ran out of memory
    ALONE = "alone"  # after the batch failed, to find the one at fault


@dataclass(frozen=True, slots=True)
class Queued(Generic[T]):
    """One item waiting for the towers."""

    item: ItemKey
    patches: int
    prepared: T


@dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """Items for one tower forward; never empty."""

    items: tuple[Queued[T], ...]
    attempt: Try = Try.FIRST


class Batcher(Generic[T]):
    """The queue before the towers."""

    def __init__(self, *, max_items: int, max_patches: int, policy: Policy = "fifo") -> None:
        self._max_items = max_items
        self._max_patches = max_patches
        self._queue: Waiting[ItemKey, Queued[T]] = Waiting(policy)
        self._again: deque[Batch[T]] = deque()

    def __len__(self) -> int:
        return len(self._queue) + sum(len(batch.items) for batch in self._again)

    def add(self, item: ItemKey, patches: int, prepared: T) -> None:
        """Queue an item."""
        self._queue.add(item, patches, Queued(item, patches, prepared))

    def take(self, *, single: bool = False) -> Batch[T] | None:
        """The next batch, or its first item alone, out of the queue; None when nothing waits."""
        if self._again:
            return self._again.popleft()
        chosen: list[Queued[T]] = []
        patches = 0
        while (queued := self._queue.peek()) is not None:
            patches += queued.patches
            if chosen and (single or len(chosen) == self._max_items or patches > self._max_patches):
                break
            self._queue.take()
            chosen.append(queued)
        return Batch(tuple(chosen)) if chosen else None

    def halve(self, batch: Batch[T]) -> bool:
        """Take the batch again in two parts. False: that was tried, or it is a single item."""
        if batch.attempt is not Try.FIRST or len(batch.items) == 1:
            return False
        middle = len(batch.items) // 2
        self._first_again([batch.items[:middle], batch.items[middle:]], Try.HALVED)
        return True

    def separate(self, batch: Batch[T]) -> bool:
        """Take the batch again item by item. False: it is a single item, so it is the fault."""
        if len(batch.items) == 1:
            return False
        self._first_again([(queued,) for queued in batch.items], Try.ALONE)
        return True

    def drop(self, item: ItemKey) -> None:
        """The item leaves the queue, wherever in it it is."""
        self._queue.drop(item)
        if self._again:
            rest = (
                Batch(tuple(q for q in batch.items if q.item != item), batch.attempt)
                for batch in self._again
            )
            self._again = deque(batch for batch in rest if batch.items)

    def _first_again(self, groups: list[tuple[Queued[T], ...]], attempt: Try) -> None:
        self._again.extendleft(Batch(group, attempt) for group in reversed(groups))
