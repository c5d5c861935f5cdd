"""What is of no more use, and from when on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from epd.deadlines import Deadlines


def test_what_has_no_deadline_never_expires() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.set("a", 0, now=5.0)
    assert deadlines.expire(1e9) == [] and not deadlines.passed("a", 1e9)


def test_time_that_is_left_counts_from_when_it_was_said() -> None:
    """Whatever the clock of the machine that said it."""
    deadlines: Deadlines[str] = Deadlines()
    deadlines.set("a", 1500, now=100.0)
    assert not deadlines.passed("a", 101.4)
    assert deadlines.passed("a", 101.5)
    assert deadlines.expire(101.4) == []
    assert deadlines.expire(101.5) == ["a"]
    assert deadlines.expire(200.0) == []


def test_what_ended_in_time_is_not_late() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.set("a", 10, now=0.0)
    deadlines.forget("a")
    deadlines.forget("b")
    assert not deadlines.passed("a", 9.0) and deadlines.expire(9.0) == []


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 99), st.booleans()), max_size=400))
def test_each_expires_once_in_order(steps: list[tuple[int, int, bool]]) -> None:
    """Set anew, forgotten, or neither; what is forgotten takes no memory for long."""
    deadlines: Deadlines[int] = Deadlines()
    ends: dict[int, float] = {}
    for key, left, forgets in steps:
        if forgets:
            deadlines.forget(key)
            ends.pop(key, None)
        else:
            deadlines.set(key, left, now=0.0)
            if left:
                ends[key] = left / 1000
    late = [key for key, end in ends.items() if end <= 0.05]
    found = deadlines.expire(0.05)
    assert sorted(found) == sorted(late)
    assert [ends[key] for key in found] == sorted(ends[key] for key in late)
    assert len(deadlines) == len(ends) - len(late)
