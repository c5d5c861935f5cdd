"""Turns of seats that share a thread of steps."""

from __future__ import annotations

import pytest

from epd.workers.turns import Turns

TOWERS, LANGUAGE = 0, 1


def run(
    turns: Turns, requests: tuple[int, int], seconds: tuple[float, float], num: int
) -> list[int]:
    """The places that stepped, in order."""
    stepped = []
    for _ in range(num):
        for place in turns.due(requests):
            turns.began(place)
            turns.took(place, seconds[place])
            stepped.append(place)
    return stepped


@pytest.mark.parametrize(
    ("requests", "share"),
    [
        ((1, 1), 0.5),
        ((9, 1), 0.5),
        ((1, 2), 1 / 3),
        ((2, 4), 1 / 3),
        ((1, 3), 0.25),
        ((1, 99), 0.25),
    ],
)
def test_every_request_counts_alike_within_bounds(requests: tuple[int, int], share: float) -> None:
    stepped = run(Turns(), requests, (1.0, 0.125), 400)
    towers, language = stepped.count(TOWERS), stepped.count(LANGUAGE) * 0.125
    assert towers / (towers + language) == pytest.approx(share, abs=0.02)


def test_towers_get_half_of_the_time_beside_one_stream() -> None:
    stepped = run(Turns(), (1, 1), (1.0, 0.125), 81)
    assert stepped.count(LANGUAGE) == 81
    assert stepped.count(TOWERS) == 11


def test_towers_alone_never_wait() -> None:
    assert run(Turns(), (1, 0), (1.0, 0.0), 5).count(TOWERS) == 5


def test_what_generates_never_waits_for_more_than_one_forward_of_the_towers() -> None:
    stepped = run(Turns(), (1, 1), (1.0, 3.0), 6)
    assert stepped == [TOWERS, LANGUAGE] * 6


def test_time_alone_does_not_count_against_the_towers() -> None:
    turns = Turns()
    run(turns, (1, 0), (10.0, 0.0), 3)
    assert run(turns, (1, 1), (1.0, 0.1), 1) == [TOWERS, LANGUAGE]


def test_a_single_seat_always_steps() -> None:
    turns = Turns()
    for _ in range(3):
        assert turns.due([1]) == [0]
        turns.began(0)
        turns.took(0, 5.0)


def test_towers_that_a_device_is_at_wait_for_the_rest_of_their_forward() -> None:
    """The thread has left it, and what it takes is charged when that is known."""
    turns = Turns()
    assert turns.due([1, 1]) == [TOWERS, LANGUAGE]
    turns.began(TOWERS)
    for _ in range(3):
        assert turns.due([1, 1]) == [LANGUAGE]
        turns.began(LANGUAGE)
        turns.took(LANGUAGE, 0.25)
    turns.took(TOWERS, 1.0)
    assert turns.due([1, 1]) == [LANGUAGE], "they have had more"
    turns.began(LANGUAGE)
    turns.took(LANGUAGE, 0.25)
    assert turns.due([1, 1]) == [TOWERS, LANGUAGE]


def test_towers_alone_are_one_forward_ahead_of_the_device_and_no_more() -> None:
    """So that what comes to generate waits for two of them at most."""
    turns = Turns()
    for _ in range(2):
        assert TOWERS in turns.due([1, 0])
        turns.began(TOWERS)
    assert turns.due([1, 0]) == [LANGUAGE]
    turns.took(TOWERS, 1.0)
    assert TOWERS in turns.due([1, 0])


def test_a_single_seat_waits_for_no_device() -> None:
    turns = Turns()
    for _ in range(5):
        assert turns.due([1]) == [0]
        turns.began(0)
