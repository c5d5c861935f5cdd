"""Turns of media that arrive and of what runs, in one thread of steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest

from epd.workers.turns import LEAST, Claims, Turn, Turns

TOWERS, LANGUAGE = 0, 1
NOTHING = Claims()
ITEMS, STREAM, PROMPT = Claims(arriving=1), Claims(running=1), Claims(arriving=1, running=1)


class Seconds(NamedTuple):
    arriving: float
    running: float


class Process:
    """Seats whose steps take `arriving_s` for media, and `running_s` for what runs."""

    def __init__(self, *, arriving_s: float = 1.0, running_s: float = 0.125) -> None:
        self.turns = Turns()
        self.seconds = Seconds(arriving_s, running_s)
        self.spent = [0.0, 0.0]
        self.stepped: list[tuple[int, Turn]] = []

    def run(self, claims: Sequence[Claims], num: int) -> Process:
        """So many turns of all seats."""
        for _ in range(num):
            self.turns.see(claims)
            for place in range(len(claims)):
                turn = self.turns.of(place)
                if turn is not None and any(claims[place]):
                    self._step(place, turn, claims[place])
        return self

    def _step(self, place: int, turn: Turn, claims: Claims) -> None:
        arriving = self.seconds.arriving * (claims.arriving > 0 and turn is not Turn.HELD)
        running = self.seconds.running * (claims.running > 0)
        self.turns.began(place, turn)
        self.turns.took(place, arriving + running)
        self.spent[0] += arriving
        self.spent[1] += running
        self.stepped.append((place, turn))

    @property
    def share(self) -> float:
        """Of media."""
        return self.spent[0] / sum(self.spent)

    def count(self, place: int) -> int:
        return sum(place == other for other, _ in self.stepped)


@pytest.mark.parametrize(
    ("arriving", "running", "share"),
    [(1, 1, 0.5), (9, 1, 0.75), (1, 2, 1 / 3), (2, 4, 1 / 3), (1, 3, 0.25), (1, 99, 0.25)],
)
@pytest.mark.parametrize("where", ["towers", "prompts", "both"])
def test_every_request_counts_alike_within_bounds(
    arriving: int, running: int, share: float, where: str
) -> None:
    """Wherever media are: a request whose items are at both seats counts once."""
    towers = Claims(arriving if where != "prompts" else 0)
    language = Claims(arriving if where != "towers" else 0, running)
    assert Process().run([towers, language], 800).share == pytest.approx(share, abs=0.02)


def test_a_prompt_with_media_shares_a_process_without_towers_too() -> None:
    process = Process().run([Claims(arriving=1, running=3)], 800)
    assert process.share == pytest.approx(LEAST, abs=0.02)
    assert process.count(0) == 800, "what runs steps in every turn"


def test_towers_and_the_prompts_of_their_items_have_one_share() -> None:
    """The control: each with its own would have twice as much."""
    both = Process().run([ITEMS, Claims(arriving=1, running=3)], 800)
    assert both.share == pytest.approx(LEAST, abs=0.02)


def test_media_alone_never_wait() -> None:
    process = Process().run([ITEMS, ITEMS], 5)
    assert process.stepped == [(TOWERS, Turn.SHARED), (LANGUAGE, Turn.SHARED)] * 5


def test_towers_alone_are_told_so() -> None:
    assert Process().run([ITEMS, NOTHING], 2).stepped == [(TOWERS, Turn.ALONE)] * 2


def test_what_runs_never_waits_for_more_than_one_forward_of_media() -> None:
    process = Process(running_s=3.0).run([ITEMS, STREAM], 6)
    assert [place for place, _ in process.stepped] == [TOWERS, LANGUAGE] * 6


def test_time_alone_does_not_count_against_media() -> None:
    process = Process(arriving_s=10.0).run([ITEMS, NOTHING], 3)
    process.stepped.clear()
    assert process.run([ITEMS, STREAM], 1).count(TOWERS) == 1


def test_a_single_seat_with_one_kind_of_work_is_alone() -> None:
    for claims in (ITEMS, STREAM):
        assert Process().run([claims], 3).stepped == [(0, Turn.ALONE)] * 3


def test_media_that_a_device_is_at_wait_for_the_rest_of_their_forward() -> None:
    """The thread has left it, and what it takes is charged when that is known."""
    turns = Turns()
    turns.see([ITEMS, PROMPT])
    turns.began(TOWERS, Turn.SHARED)
    for _ in range(3):
        assert turns.of(TOWERS) is None
        assert turns.of(LANGUAGE) is Turn.HELD
        turns.began(LANGUAGE, Turn.HELD)
        turns.took(LANGUAGE, 0.25)
    turns.took(TOWERS, 1.0)
    assert turns.of(TOWERS) is None, "they have had more"
    turns.began(LANGUAGE, Turn.HELD)
    turns.took(LANGUAGE, 0.25)
    assert turns.of(TOWERS) is Turn.SHARED


def test_towers_alone_are_one_forward_ahead_of_the_device_and_no_more() -> None:
    """So that what comes to generate waits for two of them at most."""
    turns = Turns()
    turns.see([ITEMS, NOTHING])
    for _ in range(2):
        assert turns.of(TOWERS) is Turn.ALONE
        turns.began(TOWERS, Turn.ALONE)
    assert turns.of(TOWERS) is None
    turns.took(TOWERS, 1.0)
    assert turns.of(TOWERS) is Turn.ALONE


def test_a_single_seat_waits_for_no_device() -> None:
    turns = Turns()
    turns.see([ITEMS])
    for _ in range(5):
        assert turns.of(0) is Turn.ALONE
        turns.began(0, Turn.ALONE)
