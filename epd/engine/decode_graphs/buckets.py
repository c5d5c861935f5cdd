"""Which batch sizes are recorded, and which of them a step is padded to. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass


def sizes(most: int) -> tuple[int, ...]:
    """Powers of two up to 8, then steps of 8, of 16 from 64 and of 32 from 256; `most` is the last.

    Padding then costs at most 7 rows where a row is dear, and an eighth of the batch elsewhere.
    """
    found = [1, 2, 4, *range(8, 64, 8), *range(64, 256, 16), *range(256, most, 32)]
    return (*(size for size in found if size < most), most)


@dataclass(frozen=True, slots=True)
class Buckets:
    """What was recorded: batch sizes, ascending, and how many blocks a sequence may have."""

    sizes: tuple[int, ...]
    most_blocks: int

    def size_for(self, blocks: Sequence[int]) -> int | None:
        """The batch that sequences with so many blocks each are padded to.

        None where nothing fits: too many of them, or one that is too long.
        """
        if not blocks or len(blocks) > self.sizes[-1] or max(blocks) > self.most_blocks:
            return None
        return self.sizes[bisect_left(self.sizes, len(blocks))]
