"""Who goes next, and who never waits for ever."""

from __future__ import annotations

import threading
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epd.encoder.turns import Jobs, Turns
from epd.encoder.waiting import PATIENCE, Policy, Waiting
from tests.eventually import eventually

COSTS = st.lists(st.none() | st.integers(1, 50), max_size=80)
"""What happens: a job of this cost comes, or (None) one is taken."""


def played(policy: Policy, events: list[int | None]) -> tuple[list[int], list[int]]:
    """Costs by number of job, and the order in which they were taken."""
    waiting: Waiting[int, int] = Waiting(policy)
    costs: list[int] = []
    order: list[int] = []
    for cost in [*events, *[None] * len(events)]:
        if cost is not None:
            waiting.add(len(costs), cost, len(costs))
            costs.append(cost)
        else:
            expected = waiting.peek()
            taken = waiting.take()
            assert taken == expected
            if taken is not None:
                order.append(taken)
    assert len(waiting) == 0
    return costs, order


def test_a_cheap_job_passes_a_costly_one_that_came_before_it() -> None:
    """A picture is not stuck behind a video."""
    waiting: Waiting[str, str] = Waiting("short_first")
    for name, cost in (("video", 64), ("picture", 1), ("sound", 5)):
        waiting.add(name, cost, name)
    assert [waiting.take() for _ in range(4)] == ["picture", "sound", "video", None]


def test_equal_jobs_keep_their_order() -> None:
    costs, order = played("short_first", [3] * 10)
    assert order == list(range(len(costs)))


def test_who_left_has_no_turn() -> None:
    waiting: Waiting[str, str] = Waiting("short_first")
    waiting.add("a", 1, "a")
    waiting.add("b", 2, "b")
    waiting.drop("a")
    waiting.drop("nobody")
    assert waiting.take() == "b" and waiting.peek() is None


@given(COSTS)
def test_first_come_first_served_is_a_policy(events: list[int | None]) -> None:
    """Whatever things cost."""
    _, order = played("fifo", events)
    assert order == sorted(order)


@given(COSTS)
def test_everybody_goes_once(events: list[int | None]) -> None:
    costs, order = played("short_first", events)
    assert sorted(order) == list(range(len(costs)))


@given(COSTS)
def test_nothing_starves(events: list[int | None]) -> None:
    """Those that pass a job that came before them cost little, all together."""
    costs, order = played("short_first", events)
    for at, job in enumerate(order):
        passed = sum(costs[other] for other in order[:at] if other > job)
        assert passed <= (PATIENCE + 1) * costs[job]


def test_an_endless_stream_of_cheap_jobs_lets_a_costly_one_through() -> None:
    """The claim by example, and how long it takes."""
    waiting: Waiting[int, int] = Waiting("short_first")
    waiting.add(0, 100, 0)
    for number in range(1, 1000):
        waiting.add(number, 1, number)
        if waiting.take() == 0:
            break
    assert number == PATIENCE * 100 + 1


# ---- between threads


def test_a_closed_queue_gives_out_what_it_has_and_then_nothing() -> None:
    """To whoever waits, and to whoever comes."""
    jobs: Jobs[str] = Jobs("short_first")
    jobs.put("video", 64)
    jobs.put("picture", 1)
    jobs.close()
    assert [jobs.take() for _ in range(3)] == ["picture", "video", None]


def test_a_thread_waits_for_the_next_job() -> None:
    jobs: Jobs[str] = Jobs("fifo")
    found: list[str | None] = []
    thread = threading.Thread(target=lambda: found.append(jobs.take()))
    thread.start()
    jobs.put("picture", 1)
    thread.join(30)
    assert found == ["picture"]


def _waits(turns: Turns, number: int) -> bool:
    return turns.num_waiting >= number


@pytest.mark.parametrize(
    ("policy", "order"), [("fifo", ["video", "picture"]), ("short_first", ["picture", "video"])]
)
def test_a_room_is_entered_by_cost_or_by_order(policy: Policy, order: list[str]) -> None:
    """One is inside; a video and then a picture wait for it."""
    turns = Turns(1, policy)
    found: list[str] = []

    def enter(name: str, cost: int) -> None:
        with turns.turn(cost):
            found.append(name)

    threads = []
    with turns.turn(1):
        for number, (name, cost) in enumerate((("video", 64), ("picture", 1)), 1):
            thread = threading.Thread(target=enter, args=(name, cost))
            thread.start()
            threads.append(thread)
            eventually(partial(_waits, turns, number), f"the {name} waits", pause_s=0.001)
    for thread in threads:
        thread.join(30)
    assert found == order


def test_no_more_threads_than_the_room_holds_are_inside() -> None:
    turns = Turns(2, "short_first")
    inside, most, lock = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal inside, most
        with turns.turn(1):
            with lock:
                inside += 1
                most = max(most, inside)
            with lock:
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert inside == 0 and 1 <= most <= 2
