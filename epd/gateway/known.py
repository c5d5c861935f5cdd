"""What tenants have given a name: sources that need not be sent again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from epd.prompt import Source
from epd.types import Modality

OVERHEAD = 256
"""Bytes that an entry takes beside its own."""


class Name(NamedTuple):
    """A client's name for an item. It means nothing to another tenant, and is no key elsewhere."""

    salt: str
    modality: Modality
    uuid: str


class KnownSources:
    """The sources that were named or used last, as many as there is room for. Thread-safe."""

    def __init__(self, *, most_bytes: int, most_entries: int) -> None:
        self._most_bytes = most_bytes
        self._most_entries = most_entries
        self._sources: OrderedDict[Name, Source] = OrderedDict()
        self._num_bytes = 0
        self._lock = threading.Lock()

    def get(self, name: Name) -> Source | None:
        """What the tenant last sent under this name, unless that was forgotten."""
        with self._lock:
            if name in self._sources:
                self._sources.move_to_end(name)
            return self._sources.get(name)

    def put(self, named: Iterable[tuple[Name, Source]]) -> None:
        """Each takes the place of what had its name; one too large for all the room is not kept."""
        with self._lock:
            for name, source in named:
                self._forget(name)
                self._sources[name] = source
                self._num_bytes += _cost(name, source)
            while self._num_bytes > self._most_bytes or len(self._sources) > self._most_entries:
                self._forget(next(iter(self._sources)))

    def _forget(self, name: Name) -> None:
        if (source := self._sources.pop(name, None)) is not None:
            self._num_bytes -= _cost(name, source)

    @property
    def num_bytes(self) -> int:
        """Taken by all entries."""
        return self._num_bytes

    def __len__(self) -> int:
        return len(self._sources)


def _cost(name: Name, source: Source) -> int:
    pieces = OVERHEAD * (1 + len(source.pieces))
    return source.num_bytes + len(source.url or "") + len(name.salt) + len(name.uuid) + pieces
