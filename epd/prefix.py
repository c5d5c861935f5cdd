"""Block hashes: equal hashes mean equal KV, whichever prompt it was computed for.

A block's hash covers its parent's, its token ids, and for every row inside the item's content key
and the row's number, with the positions that the item takes. The root covers the checkpoint
and the tenant's salt. Pure; the same on every worker.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence

from epd.types import ItemLayout, Prefix, Prompt

PREFIX_TOKENS = 16
"""Tokens per hashed block, a constant of the protocol; KV pages are multiples of it."""

_HASH_BYTES = 16


def prefix_root(fingerprint: Mapping[str, str], salt: str) -> bytes:
    """The parent of first blocks. Prompts of different salts never share a block."""
    digest = hashlib.blake2b(digest_size=_HASH_BYTES, person=b"epd root")
    for part in (*(f"{key}={fingerprint[key]}" for key in sorted(fingerprint)), salt):
        data = part.encode()
        digest.update(struct.pack("<Q", len(data)) + data)
    return digest.digest()


def prefix_of(prompt: Prompt, root: bytes) -> Prefix:
    """Hashes of all whole blocks of a resolved prompt."""
    token_ids = prompt.token_ids()
    facts = _Facts(prompt)
    blocks: list[bytes] = []
    parent = root
    whole = len(token_ids) - len(token_ids) % PREFIX_TOKENS
    for first in range(0, whole, PREFIX_TOKENS):
        end = first + PREFIX_TOKENS
        parent = next_hash(parent, token_ids[first:end], facts.between(first, end))
        blocks.append(parent)
    return Prefix(root=root, blocks=tuple(blocks), tail=facts.between(whole, len(token_ids)))


def next_hash(parent: bytes, token_ids: Sequence[int], facts: bytes = b"") -> bytes:
    """The hash of the block of `token_ids` behind `parent`; `facts` tells about rows inside."""
    digest = hashlib.blake2b(digest_size=_HASH_BYTES, person=b"epd block")
    digest.update(parent)
    digest.update(struct.pack(f"<{len(token_ids)}q", *token_ids))
    digest.update(facts)
    return digest.digest()


class _Facts:
    """What is inside a range of tokens besides their ids."""

    def __init__(self, prompt: Prompt) -> None:
        self._items = [
            (offset, offset + len(item.layout.token_ids), item.layout)
            for offset, item in zip(prompt.offsets, prompt.items, strict=True)
        ]

    def between(self, first: int, end: int) -> bytes:
        """Each item that is there: where in the range, from which of its tokens, which one."""
        found = b""
        for start, stop, layout in self._items:
            if start < end and first < stop:
                begin = max(start, first)
                place = struct.pack("<QQQ", begin - first, begin - start, min(stop, end) - begin)
                found += place + _identity(layout)
        return found


def _identity(layout: ItemLayout) -> bytes:
    """Positions count too: equal ids and rows at other positions have another KV."""
    digest = hashlib.blake2b(layout.positions, digest_size=_HASH_BYTES, person=b"epd positions")
    modality = layout.modality.value.encode()
    lengths = struct.pack("<QQ", len(modality), len(layout.content_key))
    places = digest.digest() + struct.pack("<d", layout.advance)
    return lengths + modality + layout.content_key + places
