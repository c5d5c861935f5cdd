"""The scheduler's promises, with a real block pool and real row bookkeeping but no model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from epd.engine import Role
from epd.engine.chunk import MoveKind
from epd.engine.request import RequestState
from epd.errors import InternalError
from epd.types import FinishReason, Prompt, RequestKey
from tests.engine.house import SIZE, House, make_request, make_rows


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.check()


def add(house: House, name: str, num_tokens: int, **asked: Any) -> RequestState:
    """Only its prompt is reserved, and shared with nobody."""
    state = house.add(make_request(name, [1] * num_tokens, **asked))
    assert state is not None
    return state


def moves(house: House) -> list[tuple[str, int]]:
    """The next step's moves, carried out: what, and how many pages."""
    step = house.step()
    return [] if step is None else [(m.kind.name, len(m.pairs)) for m in step.moves]


# ---- prefill


def test_prompts_are_chunked_in_order_of_admission(house: House) -> None:
    add(house, "a", 50)
    add(house, "b", 20)
    assert house.plan() == [("a", 0, 40, False)]
    assert house.plan() == [("a", 40, 10, True), ("b", 0, 20, True)]


def test_prefill_stops_before_the_first_missing_row(house: House) -> None:
    """The text before the picture is computed while the tower runs; others are not blocked."""
    rows = make_rows(10, 6, 4)
    add(house, "a", 20, rows=rows)
    add(house, "b", 3, max_tokens=1)
    assert house.plan() == [("a", 0, 10, False), ("b", 0, 3, True)]
    assert not house.scheduler.has_work and house.plan() == []
    rows.add(0, 0, torch.zeros(2, 1))
    assert house.scheduler.has_work
    assert house.plan() == [("a", 10, 2, False)]
    rows.add(0, 2, torch.zeros(4, 1))
    assert house.plan() == [("a", 12, 8, True)]


def test_an_atomic_span_waits_for_all_its_rows(house: House) -> None:
    rows = make_rows(10, 6, 4, atomic=True)
    add(house, "a", 20, rows=rows)
    assert house.plan() == [("a", 0, 10, False)]
    rows.add(0, 0, torch.zeros(5, 1))
    assert not house.scheduler.has_work
    rows.add(0, 5, torch.zeros(1, 1))
    assert house.plan() == [("a", 10, 10, True)]


def test_a_chunk_never_splits_an_atomic_span(house: House) -> None:
    """Budget 40, span 30 to 50: the chunk ends before it, and the next one begins with it."""
    rows = make_rows(30, 20, 10, atomic=True)
    rows.add(0, 0, torch.zeros(20, 1))
    add(house, "a", 60, rows=rows)
    add(house, "b", 4, max_tokens=1)
    assert house.plan() == [("a", 0, 30, False), ("b", 0, 4, True)]
    assert house.plan() == [("a", 30, 30, True)]


def test_an_atomic_span_larger_than_the_budget_goes_alone(house: House) -> None:
    """It waits behind what is already in the step, and then takes a step for itself."""
    rows = make_rows(2, 50, 3, atomic=True)
    rows.add(0, 0, torch.zeros(50, 1))
    add(house, "first", 42, max_tokens=1)
    add(house, "a", 55, rows=rows)
    add(house, "b", 3, max_tokens=1)
    assert house.plan() == [("first", 0, 40, False)]
    assert house.plan() == [("first", 40, 2, True), ("a", 0, 2, False), ("b", 0, 3, True)]
    add(house, "c", 3, max_tokens=1)
    assert house.plan() == [("a", 2, 50, False)]
    assert house.plan() == [("a", 52, 3, True), ("c", 0, 3, True)]


def test_media_that_are_held_wait_for_nobody_but_themselves(house: House) -> None:
    rows = make_rows(4, 6, 4)
    rows.add(0, 0, torch.zeros(6, 1))
    add(house, "picture", 14, rows=rows)
    add(house, "text", 3)
    assert (house.scheduler.num_arriving, house.scheduler.num_requests) == (1, 2)
    assert house.plan(hold=True) == [("text", 0, 3, True)]
    assert house.plan(hold=True) == [("text", 3, 1, True)]
    assert house.plan() == [("text", 4, 1, True), ("picture", 0, 14, True)]
    assert house.scheduler.num_arriving == 0


def test_prefill_role_parks_after_its_token(house: House) -> None:
    state = add(house, "a", 5, role=Role.PREFILL, n=2)
    assert house.plan() == [("a", 0, 5, True)]
    assert not house.scheduler.has_work and len(state.choices) == 2
    assert house.scheduler.get(state.key) is state and house.pool.holds(state.key, 5)


# ---- decode


def test_running_decodes_come_first(house: House) -> None:
    add(house, "a", 5)
    house.plan()
    add(house, "b", 60)
    assert house.plan() == [("a", 5, 1, True), ("b", 0, 39, False)]


def test_more_decodes_than_may_run_take_turns(house: House) -> None:
    for name in "abcd":
        add(house, name, 1, max_tokens=5)
    house.plan()
    seen = [name for _ in range(4) for name, *_ in house.plan()]
    assert seen == list("abcdabcdabcd")


def test_decode_role_computes_only_what_was_sampled(house: House) -> None:
    add(house, "a", 8, role=Role.DECODE, n=2)
    assert house.plan() == [("a", 8, 1, True)] * 2


def test_choices_copy_the_page_that_they_share_once(house: House) -> None:
    """A prompt of 20: its second page is copied for two of three choices."""
    add(house, "a", 20, n=3, max_tokens=9)
    assert moves(house) == []
    assert moves(house) == [("COPY", 2)]
    assert [moves(house) for _ in range(3)] == [[]] * 3
    assert house.pool.num_used == 4


def test_a_choice_that_ends_leaves_the_others_alone(house: House) -> None:
    state = add(house, "a", 20, n=2, max_tokens=30)
    house.plan()
    house.end_choice(state, state.choices[0])
    assert moves(house) == [] and house.pool.num_used == 2
    house.end_choice(state, state.choices[1])
    assert not house.scheduler.has_work and house.pool.num_used == 0


# ---- preemption


def full_house(num_host_blocks: int = 40) -> House:
    """Two requests whose pages are full and fill the pool: a, older and longer, and b."""
    house = House(num_blocks=3, max_step_tokens=48, num_host_blocks=num_host_blocks)
    add(house, "a", 32, max_tokens=9)
    add(house, "b", 16, max_tokens=9)
    assert len(house.plan()) == 2
    return house


def test_the_youngest_request_makes_room_and_comes_back() -> None:
    house = full_house()
    step = house.scheduler.schedule()
    assert step is not None and [c.state.key.request_id for c in step.chunks] == ["a"]
    assert [move.kind for move in step.moves] == [MoveKind.SAVE] and not step.lost
    house.carry_out(step)
    assert house.host.num_used == 1 and house.scheduler.any_preempted
    while "b" not in [name for name, *_ in house.plan()]:
        house.check()
    assert house.finished == [RequestKey("a", 0)] and house.host.num_used == 0
    while house.step():
        house.check()
    assert [len(answer) for answer in house.answers.values()] == [9, 9]


def test_without_host_memory_the_youngest_ends() -> None:
    house = full_house(num_host_blocks=0)
    assert house.plan() == [("a", 32, 1, True)]
    assert house.lost == [RequestKey("b", 0)] and house.pool.num_used == 3
    house.check()


def test_a_request_that_no_pool_of_this_size_can_hold_ends() -> None:
    house = House(num_blocks=2)
    add(house, "a", 32, max_tokens=9)
    house.plan()
    assert house.plan() == [] and house.lost == [RequestKey("a", 0)]
    assert house.pool.num_used == house.host.num_used == 0
    house.check()


def test_a_request_that_comes_back_is_the_oldest() -> None:
    """Three requests of one page each in a pool of three: b and c move, b comes back first."""
    house = House(num_blocks=3)
    for name in "abc":
        add(house, name, 16, max_tokens=17)
    order = []
    while (step := house.step()) is not None:
        house.check()
        for move in step.moves:
            order.append(move.kind.name)
        order += [key.request_id for key in house.finished if key.request_id not in order]
    assert [name for name in order if len(name) == 1] == ["a", "b", "c"]
    assert order.count("SAVE") == order.count("LOAD") > 0 and not house.lost


def test_prefill_is_never_preempted(house: House) -> None:
    """What it holds stays; the one that generates waits in host memory until it is given back."""
    house = House(num_blocks=3)
    add(house, "old", 16)
    house.plan()
    rows = make_rows(10, 6, 4)
    add(house, "a", 20, rows=rows)
    assert moves(house) == [("SAVE", 1)]
    assert not house.scheduler.has_work and house.pool.holds(RequestKey("a", 0), 20)
    house.release(RequestKey("a", 0))
    assert house.plan() == [("old", 16, 1, True)]


def test_who_waits_for_the_blocks_of_a_prompt_is_not_counted() -> None:
    """Media held for its sake would wait for it, and it for them."""
    house = House(num_blocks=3)
    add(house, "old", 16)
    house.plan()
    rows = make_rows(10, 6, 4)
    rows.add(0, 0, torch.zeros(6, 1))
    add(house, "picture", 20, rows=rows)
    assert house.scheduler.num_requests == 2
    assert house.plan(hold=True) == [] and house.scheduler.any_preempted
    assert (house.scheduler.num_arriving, house.scheduler.num_requests) == (1, 1)


def test_a_choice_may_end_while_its_request_is_away() -> None:
    house = House(num_blocks=4, max_step_tokens=48)
    add(house, "a", 32, max_tokens=9)
    b = add(house, "b", 16, max_tokens=9, n=2)
    house.plan()
    house.plan()
    assert house.scheduler.any_preempted
    house.end_choice(b, b.choices[1])
    house.check()
    while house.step():
        house.check()
    assert len(house.answers[b.key, 0]) == 9 and house.host.num_used == 0


def test_leaving_while_away_frees_host_memory() -> None:
    house = full_house()
    house.plan()
    house.release(RequestKey("b", 0))
    assert house.host.num_used == 0 and not house.scheduler.any_preempted
    house.check()


def test_pages_that_are_still_cached_need_not_be_loaded() -> None:
    """b's first page is a's too: when b comes back, only the second one is copied."""
    house = House(num_blocks=4, max_step_tokens=48)
    prompt = Prompt(text=((1,) * (SIZE + 1),))
    for name in "ab":
        asked = make_request(name, [1] * (SIZE + 1), max_tokens=40)
        assert house.add(asked, prompt=prompt) is not None
        house.plan()
    assert house.pool.num_used == 3
    found = []
    while (step := house.step()) is not None:
        found += [(move.kind.name, len(move.pairs)) for move in step.moves]
        house.check()
    assert found == [("SAVE", 2), ("LOAD", 1)] and len(house.finished) == 2


# ---- bookkeeping of one request


def test_finish_reasons_count_from_the_first_attempt() -> None:
    state = RequestState(make_request("a", [1] * 5, max_tokens=8, first_index=6))
    choice = state.choices[0]
    assert state.accept(choice, 3) is None
    assert state.accept(choice, 3) is FinishReason.LENGTH
    asked: dict[str, Any]
    for asked in ({"stop": (3, 4)}, {"stop": (4,), "max_tokens": 1}):
        state = RequestState(make_request("a", [1] * 5, **asked))
        assert state.accept(state.choices[0], 4) is FinishReason.STOP


@pytest.mark.parametrize(
    ("num_tokens", "role", "first_index", "cached"),
    [
        (0, Role.FULL, 0, 0),
        (5, Role.FULL, 8, 0),
        (5, Role.DECODE, 7, 0),
        (16, Role.FULL, 0, 16),
    ],
)
def test_requests_with_nothing_to_do_are_refused(
    num_tokens: int, role: Role, first_index: int, cached: int
) -> None:
    with pytest.raises(InternalError):
        request = make_request("a", [1] * num_tokens, role=role, first_index=first_index)
        RequestState(request, cached=cached)
