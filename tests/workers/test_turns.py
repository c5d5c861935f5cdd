"""Turns of seats that share a thread of steps."""

from __future__ import annotations

from epd.workers.turns import Turns

TOWERS, LANGUAGE = 0, 1


def run(turns: Turns, busy: tuple[bool, bool], seconds: tuple[float, float], num: int) -> list[int]:
    """The places that stepped, in order."""
    stepped = []
    for _ in range(num):
        for place in turns.due(busy):
            turns.began(place)
            turns.took(place, seconds[place])
            stepped.append(place)
    return stepped


def test_towers_get_half_of_the_time_while_something_is_generated() -> None:
    stepped = run(Turns(), (True, True), (1.0, 0.125), 81)
    assert stepped.count(LANGUAGE) == 81
    assert stepped.count(TOWERS) == 11


def test_towers_alone_never_wait() -> None:
    assert run(Turns(), (True, False), (1.0, 0.0), 5).count(TOWERS) == 5


def test_what_generates_never_waits_for_more_than_one_forward_of_the_towers() -> None:
    stepped = run(Turns(), (True, True), (1.0, 3.0), 6)
    assert stepped == [TOWERS, LANGUAGE] * 6


def test_time_alone_does_not_count_against_the_towers() -> None:
    turns = Turns()
    run(turns, (True, False), (10.0, 0.0), 3)
    assert run(turns, (True, True), (1.0, 0.1), 1) == [TOWERS, LANGUAGE]


def test_a_single_seat_always_steps() -> None:
    turns = Turns()
    for _ in range(3):
        assert turns.due([True]) == [0]
        turns.began(0)
        turns.took(0, 5.0)


def test_towers_that_a_device_is_at_wait_for_the_rest_of_their_forward() -> None:
    """The thread has left it, and what it takes is charged when that is known."""
    turns = Turns()
    assert turns.due([True, True]) == [TOWERS, LANGUAGE]
    turns.began(TOWERS)
    for _ in range(3):
        assert turns.due([True, True]) == [LANGUAGE]
        turns.began(LANGUAGE)
        turns.took(LANGUAGE, 0.25)
    turns.took(TOWERS, 1.0)
    assert turns.due([True, True]) == [LANGUAGE], "they have had more"
    turns.began(LANGUAGE)
    turns.took(LANGUAGE, 0.25)
    assert turns.due([True, True]) == [TOWERS, LANGUAGE]


def test_towers_alone_are_one_forward_ahead_of_the_device_and_no_more() -> None:
    """So that what comes to generate waits for two of them at most."""
    turns = Turns()
    for _ in range(2):
        assert TOWERS in turns.due([True, False])
        turns.began(TOWERS)
    assert turns.due([True, False]) == [LANGUAGE]
    turns.took(TOWERS, 1.0)
    assert TOWERS in turns.due([True, False])


def test_a_single_seat_waits_for_no_device() -> None:
    turns = Turns()
    for _ in range(5):
        assert turns.due([True]) == [0]
        turns.began(0)
