"""Admission: who was refused hears when there is room, whoever made it."""

from __future__ import annotations

from typing import Any

from epd.types import Prefix, RequestKey
from epd.wire import messages as m
from epd.workers.language import Admission

R = RequestKey("r", 1)


class House:
    """An engine as far as admission sees it, and the station that is told."""

    def __init__(self, *, free: int, preempted: int = 0) -> None:
        self.free_tokens = free
        self.host_blocks_used = preempted
        self.num_tokens_capacity = 100
        self.told: list[tuple[str, Any]] = []
        self.admission = Admission(self, self)  # type: ignore[arg-type]

    def reserve(
        self, key: RequestKey, num_tokens: int, prefix: Prefix | None, *, most_cached: int
    ) -> int | None:
        if self.host_blocks_used or num_tokens > self.free_tokens:
            return None
        self.free_tokens -= num_tokens
        return most_cached

    def fits(self, num_tokens: int) -> bool:
        return num_tokens <= self.num_tokens_capacity

    def send(self, to: str, message: object) -> None:
        self.told.append((to, message))

    def ask(self, num_tokens: int, most_cached: int = 0) -> int | None:
        return self.admission.reserve("g", R, num_tokens, None, most_cached=most_cached)

    @property
    def rooms(self) -> int:
        return sum(isinstance(message, m.Room) for _, message in self.told)


def test_what_is_cached_is_answered_with_what_is_held() -> None:
    house = House(free=20)
    assert house.ask(20, most_cached=16) == 16
    assert house.told == []


def test_a_request_that_can_never_fit_is_refused_for_good() -> None:
    """Nobody owes it anything."""
    house = House(free=20)
    assert house.ask(101) is None
    reason = "needs KV for 101 tokens, 100 in all"
    assert house.told == [("g", m.Refused(request=R, reason=reason, never=True))]
    house.admission.given_back()
    assert house.rooms == 0


def test_blocks_that_a_step_freed_are_announced_once() -> None:
    """A choice ended inside the engine; nobody gave anything back from outside."""
    house = House(free=5)
    assert house.ask(20) is None
    house.admission.stepped()
    assert house.rooms == 0
    house.free_tokens = 6
    house.admission.stepped()
    house.admission.stepped()
    assert house.rooms == 1


def test_a_step_that_took_blocks_announces_nothing() -> None:
    house = House(free=5)
    house.ask(20)
    house.free_tokens = 4
    house.admission.stepped()
    assert house.rooms == 0


def test_while_preempted_requests_wait_there_is_no_room_for_new_ones() -> None:
    """When the last of them is back there may be, although fewer blocks are free."""
    house = House(free=50, preempted=2)
    assert house.ask(20) is None
    house.free_tokens = 60
    house.admission.stepped()
    assert house.rooms == 0
    house.host_blocks_used, house.free_tokens = 0, 40
    house.admission.stepped()
    assert house.rooms == 1
    assert house.ask(20) == 0


def test_a_refusal_says_how_often_there_is_room() -> None:
    """As soon as one request has ended."""
    house = House(free=20)
    for k in range(3):
        house.admission.reserve("g", RequestKey("r", k), 5, None, most_cached=0)
    house.admission.freed(RequestKey("r", 0))
    assert house.ask(100) is None
    ((_, refused),) = house.told
    assert refused.retry_after_ms >= 1
