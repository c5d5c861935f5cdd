"""Many requests and hardly any room: everything is answered, in whatever order things happen."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.cluster.crowd import crowd

SOURCES = (b"one", b"two")
LARGEST = 20 + 2 * 4 + 6
"""Tokens of the largest request of one choice."""


@pytest.mark.parametrize("fused_too", [False, True])
def test_eight_requests_share_room_for_hardly_more_than_one(fused_too: bool) -> None:
    """Each of three choices and two items; no order was chosen to make it easy."""
    many = crowd(LARGEST * 11 // 10, fused_too=fused_too)
    for _ in range(8):
        many.ask(20, SOURCES, 3, 6, scored=False)
    many.settle()
    many.check_all_done()


def test_a_second_turn_of_an_item_runs_no_tower() -> None:
    """It was held, and dropped when its KV was found."""
    many = crowd(100)
    four = (*SOURCES, *SOURCES)
    many.ask(17, four, 1, 6, scored=False)
    many.settle()
    assert many.towers == 4
    many.ask(17, four, 1, 6, scored=False)
    many.settle()
    assert many.towers == 5, "the end of the last item is in no whole block"
    many.evict()
    many.ask(17, four, 1, 6, scored=False)
    many.settle()
    assert many.towers == 9
    many.check_all_done()


def test_a_refused_request_whose_worker_died_keeps_only_suspects_waiting() -> None:
    """It waits until no other suspect is where it would go; newcomers do not wait for that."""
    many = crowd(35, fused_too=True)
    many.ask(11, (), 1, 1, scored=True)
    many.ask(1, (), 1, 1, scored=True)
    many.ask(1, (b"one",), 1, 1, scored=True)
    many.ask(16, (), 2, 4, scored=True)
    for lane in (
        "gateway D0",
        "D0 gateway",
        "gateway D0",
        "gateway E1",
        "E1 gateway",
        "D0 gateway",
    ):
        sender, to = lane.split()
        many.move((sender, to))
    assert many.aged == {"r3"}
    many.restart("F")
    many.ask(1, (), 1, 1, scored=True)
    assert ("gateway", "F") in many.lanes and many.aged == {"r3"}
    many.settle()
    many.check_all_done()


class AnyCrowd(RuleBasedStateMachine):
    """Up to eight requests; a few of them leave, a few workers die."""

    @initialize(
        kv_tokens=st.sampled_from([LARGEST + 1, 50, 100]),
        pairs=st.integers(1, 2),
        fused_too=st.booleans(),
    )
    def start(self, kv_tokens: int, pairs: int, fused_too: bool) -> None:
        self.crowd = crowd(kv_tokens, pairs=pairs, fused_too=fused_too)
        self.deaths = 0

    @precondition(lambda self: len(self.crowd.seen) < 8)
    @rule(
        text=st.integers(1, 20),
        sources=st.lists(st.sampled_from(SOURCES), max_size=2),
        n=st.integers(1, 3),
        num_tokens=st.integers(1, 6),
        scored=st.integers(0, 3),
        priority=st.integers(-1, 1),
    )
    def ask(
        self,
        text: int,
        sources: list[bytes],
        n: int,
        num_tokens: int,
        scored: int,
        priority: int,
    ) -> None:
        asked = (text, tuple(sources), n, num_tokens)
        self.crowd.ask(*asked, scored=scored == 0, priority=priority)

    @precondition(lambda self: self.crowd.lanes)
    @rule(data=st.data(), count=st.integers(1, 20))
    def move(self, data: st.DataObject, count: int) -> None:
        for _ in range(count):
            if self.crowd.lanes:
                self.crowd.move(data.draw(st.sampled_from(sorted(self.crowd.lanes))))

    @rule(data=st.data())
    def work(self, data: st.DataObject) -> None:
        self.crowd.nodes[data.draw(st.sampled_from(sorted(self.crowd.nodes)))].step()

    @precondition(lambda self: self.crowd.seen)
    @rule(data=st.data(), choice=st.integers(0, 2))
    def unwant(self, data: st.DataObject, choice: int) -> None:
        self.crowd.unwant(data.draw(st.sampled_from(sorted(self.crowd.seen))), choice)

    @precondition(lambda self: len(self.crowd.seen) > 4)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.crowd.leave(data.draw(st.sampled_from(sorted(self.crowd.seen))))

    @rule()
    def evict(self) -> None:
        self.crowd.evict()

    @precondition(lambda self: self.deaths < 3)
    @rule(data=st.data())
    def restart(self, data: st.DataObject) -> None:
        self.deaths += 1
        self.crowd.restart(data.draw(st.sampled_from(sorted(self.crowd.nodes))))

    def teardown(self) -> None:
        if hasattr(self, "crowd"):
            self.crowd.settle()
            self.crowd.check_all_done()


def test_any_order_of_events_answers_everybody() -> None:
    some = settings(max_examples=150, stateful_step_count=40)
    run_state_machine_as_test(AnyCrowd, settings=some)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_orders_of_events_answer_everybody() -> None:
    many = settings(max_examples=3000, stateful_step_count=60)
    run_state_machine_as_test(AnyCrowd, settings=many)


@given(asked=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 3)), min_size=8, max_size=8))
@settings(max_examples=50)
def test_requests_of_any_sizes_share_room_for_one(asked: list[tuple[int, int]]) -> None:
    many = crowd(LARGEST + 1)
    for text, n in asked:
        many.ask(text, SOURCES[: text % 3], n, 6, scored=False)
    many.settle()
    many.check_all_done()
