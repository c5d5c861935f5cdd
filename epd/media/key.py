"""Content keys: what an item is, whoever sends it."""

from __future__ import annotations

import hashlib


def content_key(data: bytes, *facts: str) -> bytes:
    """SHA-256 over the bytes and the facts that shape the result.

    Every part is preceded by its length, so that no two lists of parts share an encoding.
    """
    digest = hashlib.sha256()
    for part in (data, *(fact.encode() for fact in facts)):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()
