"""Which blocks are free, in use, or cached. Pure bookkeeping: no tensors.

A block in use has as many references as tables hold it. A full block may be known by a hash, by
which others find it. Known blocks that nobody uses stay until no free one is left; then the least
recently used goes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class Pages:
    """Blocks numbered from 0, each with its references and perhaps a hash."""

    def __init__(self, num_blocks: int) -> None:
        self._free = list(range(num_blocks))[::-1]
        self._refs = [0] * num_blocks
        self._hashes: dict[int, bytes] = {}
        self._blocks: dict[bytes, int] = {}
        # Known blocks that nobody uses, in the order in which they will be given out again.
        self._idle: dict[int, None] = {}

    @property
    def num_free(self) -> int:
        """Blocks that could be taken now, cached ones too."""
        return len(self._free) + len(self._idle)

    @property
    def num_cached(self) -> int:
        """Known blocks that nobody uses."""
        return len(self._idle)

    def refs(self, block: int) -> int:
        """How many tables hold the block."""
        return self._refs[block]

    def num_free_beside(self, blocks: Iterable[int]) -> int:
        """Blocks that could be taken if these were in use."""
        return self.num_free - sum(block in self._idle for block in blocks)

    def take(self, num: int) -> list[int]:
        """Blocks with one reference each; at most num_free. What they were known by is gone."""
        taken = []
        for _ in range(num):
            if not self._free:
                self.forget(next(iter(self._idle)))
            block = self._free.pop()
            self._refs[block] = 1
            taken.append(block)
        return taken

    def share(self, blocks: Iterable[int]) -> None:
        """One more reference to each: to blocks in use, or found by their hash."""
        for block in blocks:
            self._idle.pop(block, None)
            self._refs[block] += 1

    def give_back(self, blocks: Sequence[int]) -> None:
        """One reference less to each. A sequence's last block will be given out first."""
        for block in reversed(blocks):
            self._refs[block] -= 1
            if self._refs[block]:
                continue
            if block in self._hashes:
                self._idle[block] = None
            else:
                self._free.append(block)

    def publish(self, block: int, page_hash: bytes) -> None:
        """The block is full and will not change: others may find it. The first one stays."""
        if block not in self._hashes and page_hash not in self._blocks:
            self._hashes[block] = page_hash
            self._blocks[page_hash] = block

    def hash_of(self, block: int) -> bytes | None:
        """What the block is known by."""
        return self._hashes.get(block)

    def find(self, page_hash: bytes | None) -> int | None:
        """The block that is known by this hash."""
        return None if page_hash is None else self._blocks.get(page_hash)

    def forget(self, block: int) -> None:
        """Nobody shall find the block any more."""
        page_hash = self._hashes.pop(block, None)
        if page_hash is None:
            return
        del self._blocks[page_hash]
        if block in self._idle:
            del self._idle[block]
            self._free.append(block)

    def check(self, held: Iterable[int]) -> None:
        """`held`: every reference that there should be. Each block is in exactly one place."""
        refs = [0] * len(self._refs)
        for block in held:
            refs[block] += 1
        assert refs == self._refs, "references lost or doubled"
        unused = [block for block, count in enumerate(refs) if not count]
        assert sorted([*self._free, *self._idle]) == unused, "block lost or doubled"
        assert self._idle.keys() <= self._hashes.keys(), "cached block without a hash"
        assert not self._hashes.keys() & set(self._free), "free block with a hash"
        assert {page_hash: block for block, page_hash in self._hashes.items()} == self._blocks
