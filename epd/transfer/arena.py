"""Bookkeeping of one block of memory: who has which range. Pure."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Final

ALIGNMENT: Final = 64


@dataclass(frozen=True, slots=True)
class Slot:
    """A range lent to `to`. Its number is never used again, so a late give_back hits nothing."""

    number: int
    offset: int
    num_bytes: int
    to: str


class Arena:
    """First fit over free ranges, which are kept sorted and merged."""

    def __init__(self, num_bytes: int, numbers: Iterator[int] | None = None) -> None:
        """`numbers` of its slots, for arenas that share them."""
        self.num_bytes = num_bytes - num_bytes % ALIGNMENT
        self.in_use = 0
        self._free = [(0, self.num_bytes)] if self.num_bytes else []
        self._slots: dict[int, Slot] = {}
        self._numbers = count() if numbers is None else numbers

    @property
    def slots(self) -> tuple[Slot, ...]:
        """What is lent now."""
        return tuple(self._slots.values())

    def could_fit(self, num_bytes: int) -> bool:
        """Whether lend() succeeds when everything has been given back."""
        return 0 < num_bytes <= self.num_bytes

    def lend(self, num_bytes: int, *, to: str) -> Slot | None:
        """A range of its own, or None while there is no hole that is large enough."""
        size = -(-num_bytes // ALIGNMENT) * ALIGNMENT
        for i, (start, end) in enumerate(self._free):
            if end - start >= size:
                self._free[i : i + 1] = [(start + size, end)] if end - start > size else []
                slot = Slot(next(self._numbers), start, size, to)
                self._slots[slot.number] = slot
                self.in_use += size
                return slot
        return None

    def lender(self, number: int) -> str | None:
        """To whom this slot is lent; None if it is not."""
        slot = self._slots.get(number)
        return None if slot is None else slot.to

    def slot(self, number: int) -> Slot:
        """One that is lent."""
        return self._slots[number]

    def give_back(self, number: int) -> None:
        """The range is free."""
        slot = self._slots.pop(number)
        self.in_use -= slot.num_bytes
        start, end = slot.offset, slot.offset + slot.num_bytes
        i = bisect(self._free, (start, end))
        if i < len(self._free) and self._free[i][0] == end:
            end = self._free.pop(i)[1]
        if i > 0 and self._free[i - 1][1] == start:
            start = self._free.pop(i - 1)[0]
            i -= 1
        self._free.insert(i, (start, end))

    def check(self) -> None:
        """Free and lent ranges are disjoint, merged and cover everything."""
        ranges = sorted(
            [(start, end, False) for start, end in self._free]
            + [(s.offset, s.offset + s.num_bytes, True) for s in self._slots.values()]
        )
        at, was_lent = 0, True
        for start, end, lent in ranges:
            assert start == at < end, ranges
            assert lent or was_lent, "two free ranges side by side"
            at, was_lent = end, lent
        assert at == self.num_bytes
        assert self.in_use == sum(slot.num_bytes for slot in self._slots.values())
