"""The hashes by which a sequence's full pages are known: the prompt's, then those of its answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from epd.prefix import PREFIX_TOKENS, next_hash
from epd.types import Prefix


class PageHashes:
    """Hashes of one sequence's pages: each is that of the last block of tokens in the page."""

    def __init__(self, prefix: Prefix, *, block_size: int) -> None:
        self._prefix = prefix
        self._per_page = block_size // PREFIX_TOKENS
        # Of blocks behind the prompt's whole ones, as far as they were asked for.
        self._own: list[bytes] = []

    def leading(self, most_tokens: int) -> list[bytes]:
        """Of the prompt's whole pages that lie within its first `most_tokens`."""
        whole = min(most_tokens // PREFIX_TOKENS, len(self._prefix.blocks))
        return list(self._prefix.blocks[self._per_page - 1 : whole : self._per_page])

    def page(self, number: int, read: Callable[[int, int], Sequence[int]]) -> bytes:
        """Of page `number`; `read` gives the sequence's token ids [first, end)."""
        blocks = self._prefix.blocks
        last = (number + 1) * self._per_page - 1
        if last < len(blocks):
            return blocks[last]
        while len(blocks) + len(self._own) <= last:
            first = (len(blocks) + len(self._own)) * PREFIX_TOKENS
            facts = b"" if self._own else self._prefix.tail
            ids = read(first, first + PREFIX_TOKENS)
            self._own.append(next_hash(self._parent, ids, facts))
        return self._own[last - len(blocks)]

    @property
    def _parent(self) -> bytes:
        return (self._own or self._prefix.blocks or (self._prefix.root,))[-1]
