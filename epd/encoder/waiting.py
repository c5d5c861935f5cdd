"""Who goes next in a queue of jobs that differ in cost. Pure: no clock, the work taken is the time.

Cheap jobs pass costly ones, until a job has seen `patience` times its own cost go: from then on
only those that came before it go first. So what passes a job that came earlier is never more than
its own cost, `patience` and one times, and nothing starves. With a patience of 0 it is first come,
first served.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

PATIENCE = 4

Policy = Literal["fifo", "short_first"]


@dataclass(frozen=True, slots=True)
class _Job(Generic[T]):
    """`due`: the work after which nothing that came later goes before it."""

    cost: int
    due: int
    value: T


class Waiting(Generic[K, T]):
    """Jobs by key, each once."""

    def __init__(self, policy: Policy) -> None:
        self._patience = PATIENCE if policy == "short_first" else 0
        self._jobs: dict[K, _Job[T]] = {}  # in order of coming
        self._taken = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, key: K, cost: int, value: T) -> None:
        """It waits from now on. Costs below 1 count as 1."""
        cost = max(1, cost)
        self._jobs[key] = _Job(cost, self._taken + self._patience * cost, value)

    def peek(self) -> T | None:
        """Who goes next."""
        key = self._next()
        return None if key is None else self._jobs[key].value

    def take(self) -> T | None:
        """The same, and it waits no more."""
        key = self._next()
        if key is None:
            return None
        job = self._jobs.pop(key)
        self._taken += job.cost
        return job.value

    def drop(self, key: K) -> None:
        """It leaves without its turn; unknown ones are ignored."""
        self._jobs.pop(key, None)

    def _next(self) -> K | None:
        due = (key for key, job in self._jobs.items() if job.due <= self._taken)
        cheapest = min(self._jobs, key=lambda key: self._jobs[key].cost, default=None)
        return next(due, cheapest)
