"""Which prompts' beginnings each worker should still have KV of: a guess, for placement alone.

What was computed on a worker last is expected there. Workers evict as they must and serve other
gateways too, so their own word corrects the guess with every attempt.
"""

from __future__ import annotations

from collections.abc import Sequence

from epd.cluster.membership import Membership
from epd.cluster.recent import Recent
from epd.prefix import PREFIX_TOKENS, next_hash
from epd.types import Prefix


class Expected:
    """Block hashes by worker, as many as its KV has room for."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self._blocks: dict[str, Recent[bytes]] = {}

    def tokens(self, name: str, blocks: Sequence[bytes]) -> int:
        """Length of the longest beginning of a prompt that this worker should have."""
        known = self._blocks.get(name)
        if known is None:
            return 0
        num = next((k for k, block in enumerate(blocks) if block not in known), len(blocks))
        return num * PREFIX_TOKENS

    def add(self, name: str, blocks: Sequence[bytes]) -> None:
        """The worker has, or will soon have, these blocks of one prompt."""
        if (member := self._membership.get(name)) is None:
            return
        if name not in self._blocks:
            self._blocks[name] = Recent(member.kv_tokens // PREFIX_TOKENS)
        self._blocks[name].touch(reversed(blocks))  # a block is of no use without those before it

    def correct(
        self, name: str, blocks: Sequence[bytes], cached_tokens: int, most_cached: int
    ) -> None:
        """The worker found `cached_tokens` of a prompt, where it looked for `most_cached`."""
        num = cached_tokens // PREFIX_TOKENS
        self.add(name, blocks[:num])
        if name in self._blocks and num < most_cached // PREFIX_TOKENS:
            self._blocks[name].discard(blocks[num:])

    def forget(self, name: str) -> None:
        """The worker is gone; a successor of its name has nothing."""
        self._blocks.pop(name, None)


def continued(prefix: Prefix, tail: Sequence[int], generated: Sequence[int]) -> list[bytes]:
    """Hashes of the whole blocks behind a prompt's own; `tail` are its ids after its last one."""
    token_ids = [*tail, *generated]
    parent, facts = prefix.blocks[-1] if prefix.blocks else prefix.root, prefix.tail
    found: list[bytes] = []
    for first in range(0, len(token_ids) - PREFIX_TOKENS + 1, PREFIX_TOKENS):
        parent = next_hash(parent, token_ids[first : first + PREFIX_TOKENS], facts)
        facts = b""
        found.append(parent)
    return found
