"""Who reads which slot of an arena, and which slots are kept for tensors of our own. Pure.

A slot that is lent is free when its reader gave it back or is lost. One that is kept is free when
its tensors are gone and everybody who read there has given it back or is lost.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from epd.transfer.arena import Arena, Slot

KEPT_SHARE: Final = 2
"""One part in so many of an arena may be kept, for the rest must never be without room for long."""

OURS: Final = "(kept)"
"""Whose a slot is that is kept: no name of a receiver."""


@dataclass(slots=True)
class Kept:
    """A slot that is kept for its tensors, and after them for its readers."""

    slot: Slot
    readers: Counter[str] = field(default_factory=Counter)
    gone: bool = False  # its tensors


class Lending:
    """Not thread-safe but for gone(). `ended` is called before a slot's bytes may be used anew."""

    def __init__(self, arena: Arena, ended: Callable[[Slot], None]) -> None:
        self.arena = arena
        self.kept_bytes = 0
        self._ended = ended
        self._kept: dict[int, Kept] = {}  # by number
        self._gone: deque[int] = deque()

    @property
    def in_use(self) -> int:
        """Bytes lent now, those that are kept not."""
        self.reap()
        return self.arena.in_use - self.kept_bytes

    @property
    def any_kept(self) -> bool:
        """Whether tensors or their readers need any of it."""
        return bool(self._kept)

    def keep(self, num_bytes: int) -> Slot | None:
        """A slot for tensors of ours, until gone(); None where there is no room for more."""
        self.reap()
        if self.kept_bytes + num_bytes > self.arena.num_bytes // KEPT_SHARE:
            return None
        slot = self.arena.lend(num_bytes, to=OURS)
        if slot is not None:
            self._kept[slot.number] = Kept(slot)
            self.kept_bytes += slot.num_bytes
        return slot

    def gone(self, number: int) -> None:
        """No tensor shows this slot any more. From any thread."""
        self._gone.append(number)

    def lend(self, num_bytes: int, *, to: str) -> Slot | None:
        """A slot for one reader; None while there is no room."""
        self.reap()
        return self.arena.lend(num_bytes, to=to)

    def kept_at(self, offset: int) -> Kept | None:
        """What is kept around this place."""
        for kept in self._kept.values():
            if kept.slot.offset <= offset < kept.slot.offset + kept.slot.num_bytes:
                return kept
        return None

    def give_back(self, number: int, *, by: str) -> bool:
        """The reader needs it no more. False: it was not lent to that one."""
        kept = self._kept.get(number)
        if kept is not None and kept.readers[by]:
            kept.readers -= Counter((by,))
            self._end_unread(kept)
        elif kept is None and self.arena.lender(number) == by:
            self._end(number)
        else:
            return False
        return True

    def reads(self, name: str) -> bool:
        """Whether anything is lent to this reader."""
        if any(kept.readers[name] for kept in self._kept.values()):
            return True
        return any(slot.to == name for slot in self.arena.slots)

    def lost(self, name: str) -> None:
        """What this reader has is free."""
        for kept in list(self._kept.values()):
            del kept.readers[name]
            self._end_unread(kept)
        for slot in self.arena.slots:
            if slot.to == name:
                self._end(slot.number)

    def reap(self) -> None:
        """Slots whose tensors are gone are free, unless somebody reads there."""
        while self._gone:
            kept = self._kept[self._gone.popleft()]
            kept.gone = True
            self._end_unread(kept)

    def _end_unread(self, kept: Kept) -> None:
        if kept.gone and not kept.readers:
            del self._kept[kept.slot.number]
            self.kept_bytes -= kept.slot.num_bytes
            self._end(kept.slot.number)

    def _end(self, number: int) -> None:
        self._ended(self.arena.slot(number))
        self.arena.give_back(number)
