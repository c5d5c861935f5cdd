"""Which KV blocks belong to which request. Pure bookkeeping: no tensors.

A reservation is all or nothing and never waits. Blocks of one request are in token order.
"""

from __future__ import annotations

from epd.types import RequestKey


class BlockPool:
    """Fixed blocks of `block_size` tokens, numbered from 0."""

    def __init__(self, *, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._free = list(range(num_blocks))[::-1]
        self._owned: dict[RequestKey, list[int]] = {}

    @property
    def num_free(self) -> int:
        """Blocks that nobody holds."""
        return len(self._free)

    @property
    def num_used(self) -> int:
        """Blocks held by someone."""
        return self.num_blocks - len(self._free)

    def blocks_for(self, num_tokens: int) -> int:
        """Blocks that `num_tokens` take."""
        return -(-num_tokens // self.block_size)

    def fits(self, num_tokens: int) -> bool:
        """Could an idle pool hold this many tokens of one request?"""
        return self.blocks_for(num_tokens) <= self.num_blocks

    def reserve(self, key: RequestKey, num_tokens: int) -> bool:
        """Hold blocks for `num_tokens` in all, counting those already held. False: no change."""
        held = self._owned.get(key, [])
        missing = self.blocks_for(num_tokens) - len(held)
        if missing > len(self._free):
            return False
        self._owned[key] = held
        held.extend(self._free.pop() for _ in range(missing))
        return True

    def table(self, key: RequestKey) -> list[int] | None:
        """The request's blocks in token order; None without a reservation. Not to be changed."""
        return self._owned.get(key)

    def holds(self, key: RequestKey, num_tokens: int) -> bool:
        """Does the request's reservation cover `num_tokens`?"""
        table = self._owned.get(key)
        return table is not None and len(table) * self.block_size >= num_tokens

    def release(self, key: RequestKey) -> int:
        """Give everything back; the number of blocks, 0 for an unknown key."""
        blocks = self._owned.pop(key, [])
        self._free.extend(reversed(blocks))
        return len(blocks)

    def keys(self) -> frozenset[RequestKey]:
        """Who holds a reservation."""
        return frozenset(self._owned)

    def check(self) -> None:
        """Every block is free or owned, exactly once."""
        owned = [block for blocks in self._owned.values() for block in blocks]
        assert sorted(owned + self._free) == list(range(self.num_blocks)), "block lost or doubled"
