"""Which blocks of host memory hold KV of preempted requests. Pure bookkeeping: no tensors."""

from __future__ import annotations

from epd.types import RequestKey


class HostBlocks:
    """A bounded number of blocks, numbered from 0."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._free = list(range(num_blocks))[::-1]
        self._held: dict[RequestKey, list[int]] = {}

    @property
    def num_used(self) -> int:
        """Blocks held by someone."""
        return self.num_blocks - len(self._free)

    def take(self, key: RequestKey, num: int) -> list[int] | None:
        """Blocks for a request that has none here; None: no room, and nothing changed."""
        assert key not in self._held, "preempted twice"
        if num > len(self._free):
            return None
        self._held[key] = [self._free.pop() for _ in range(num)]
        return self._held[key]

    def of(self, key: RequestKey) -> list[int]:
        """The request's blocks. Not to be changed."""
        return self._held[key]

    def give_back(self, key: RequestKey) -> None:
        """The request is back or gone; unknown keys are ignored."""
        self._free += reversed(self._held.pop(key, []))

    def keys(self) -> frozenset[RequestKey]:
        """Who has blocks here."""
        return frozenset(self._held)

    def check(self) -> None:
        """Every block is free or held, exactly once."""
        held = [block for blocks in self._held.values() for block in blocks]
        assert sorted(held + self._free) == list(range(self.num_blocks)), "host block lost"
