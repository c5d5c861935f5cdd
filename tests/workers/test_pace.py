"""How often room becomes free."""

from __future__ import annotations

from epd.types import RequestKey
from epd.workers.pace import Pace


def key(number: int) -> RequestKey:
    return RequestKey("r", number)


def test_nothing_is_known_before_anybody_has_ended() -> None:
    pace = Pace()
    pace.began(key(0), 0.0)
    assert pace.next_ms() == 0


def test_the_more_hold_room_the_sooner_one_gives_it_back() -> None:
    """Four that hold it for two seconds each: one every half second."""
    pace = Pace()
    for k in range(5):
        pace.began(key(k), 0.0)
    pace.ended(key(0), 2.0)
    pace.ended(key(0), 9.0)
    pace.ended(key(9), 9.0)
    assert pace.next_ms() == 500


def test_long_ago_fades() -> None:
    pace = Pace()
    for k in range(100):
        pace.began(key(k), 0.0)
        pace.ended(key(k), 100.0 if k < 10 else 1.0)
    pace.began(key(0), 0.0)
    assert pace.next_ms() < 1100
