"""The arena's bookkeeping under any order of lending and giving back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from epd.transfer.arena import ALIGNMENT, Arena


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 700)), max_size=60))
def test_ranges_never_overlap_and_all_come_back(steps: list[tuple[bool, int]]) -> None:
    arena = Arena(4096)
    for lending, number in steps:
        if lending:
            arena.lend(number, to="p")
        elif arena.slots:
            arena.give_back(arena.slots[number % len(arena.slots)].number)
        arena.check()
    for slot in arena.slots:
        arena.give_back(slot.number)
        arena.check()
    assert arena.in_use == 0
    assert arena.lend(4096, to="p") is not None


def test_slots_are_aligned() -> None:
    arena = Arena(1024)
    offsets = [slot.offset for _ in range(3) if (slot := arena.lend(3, to="p"))]
    assert offsets == [0, ALIGNMENT, 2 * ALIGNMENT]


def test_numbers_are_never_used_again() -> None:
    arena = Arena(64)
    first = arena.lend(64, to="p")
    assert first is not None and arena.lend(1, to="p") is None
    arena.give_back(first.number)
    second = arena.lend(64, to="p")
    assert second is not None and second.number != first.number


def test_what_can_never_fit_is_known_at_once() -> None:
    arena = Arena(100)  # 64 of them are usable
    assert arena.could_fit(64)
    assert not arena.could_fit(65)
    assert not Arena(0).could_fit(1)
