"""Keys that have ended here: their later messages are refused, so a late reserve cannot leak."""

from __future__ import annotations

from collections.abc import Hashable


class Tombstones:
    """The last `limit` ended keys, oldest forgotten first."""

    def __init__(self, limit: int = 65536) -> None:
        self._limit = limit
        self._keys: dict[Hashable, None] = {}

    def add(self, key: Hashable) -> None:
        """Bury a key; again is harmless."""
        self._keys.pop(key, None)
        self._keys[key] = None
        if len(self._keys) > self._limit:
            del self._keys[next(iter(self._keys))]

    def __contains__(self, key: Hashable) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        return len(self._keys)
