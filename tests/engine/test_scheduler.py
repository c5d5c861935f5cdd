"""The scheduler's promises, with a real block pool and real row bookkeeping but no model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from epd.engine import EngineRequest, MultiModalEmbeddingData, Role
from epd.engine.kv.blocks import BlockPool
from epd.engine.request import RequestState
from epd.engine.scheduler import Scheduler, Step
from epd.errors import InternalError
from epd.types import (
    FinishReason,
    ItemKey,
    ItemLayout,
    Modality,
    Prompt,
    PromptItem,
    RequestKey,
    SamplingParams,
)

BUDGET, RUNNING = 40, 3


def make_state(
    name: str,
    num_tokens: int,
    *,
    role: Role = Role.FULL,
    rows: MultiModalEmbeddingData | None = None,
    max_tokens: int = 8,
    first_index: int = 0,
    stop: tuple[int, ...] = (),
) -> RequestState:
    return RequestState(
        EngineRequest(
            key=RequestKey(name, 0),
            token_ids=[1] * num_tokens,
            positions=torch.empty(0),
            position_delta=0,
            sampling=SamplingParams(max_tokens=max_tokens, stop_token_ids=stop),
            first_index=first_index,
            embeddings=rows,
            role=role,
        )
    )


def make_rows(before: int, num_rows: int, after: int) -> MultiModalEmbeddingData:
    """One item between two texts, one value per row."""
    layout = ItemLayout(
        modality=Modality.IMAGE,
        token_ids=(0,) * num_rows,
        row_spans=((0, num_rows),),
        width=1,
        dtype="float32",
        content_key=b"",
    )
    item = PromptItem(item=ItemKey("r", 0, 0), encoder="encode-0", layout=layout)
    return MultiModalEmbeddingData(Prompt(text=((1,) * before, (1,) * after), items=(item,)))


class House:
    """A pool and a scheduler."""

    def __init__(self, *, num_blocks: int = 40, **limits: int) -> None:
        self.pool = BlockPool(num_blocks=num_blocks, block_size=16)
        chosen = {"max_step_tokens": BUDGET, "max_running": RUNNING, **limits}
        self.scheduler = Scheduler(self.pool, **chosen)

    def add(self, state: RequestState, *, reserve: int | None = None) -> RequestState:
        assert self.pool.reserve(state.key, reserve or len(state.token_ids))
        self.scheduler.add(state)
        return state

    def plan(self) -> list[tuple[str, int, int, bool]]:
        """The next step in plain words, carried out."""
        step = self.scheduler.schedule()
        if step is None:
            return []
        self.run(step)
        return [(c.state.key.request_id, c.first, c.num, c.samples) for c in step.chunks]

    def run(self, step: Step) -> None:
        for chunk in step.chunks:
            self.scheduler.complete(chunk)
            if chunk.samples and chunk.state.accept(2):
                self.release(chunk.state.key)

    def release(self, key: RequestKey) -> None:
        self.scheduler.remove(key)
        self.pool.release(key)

    def check(self) -> None:
        self.pool.check()
        self.scheduler.check()


@pytest.fixture
def house() -> Any:
    made = House()
    yield made
    made.check()


def test_prompts_are_chunked_in_order_of_admission(house: House) -> None:
    house.add(make_state("a", 50))
    house.add(make_state("b", 20))
    assert house.plan() == [("a", 0, 40, False)]
    assert house.plan() == [("a", 40, 10, True), ("b", 0, 20, True)]


def test_running_decodes_come_first(house: House) -> None:
    house.add(make_state("a", 5))
    house.plan()
    house.add(make_state("b", 60))
    assert house.plan() == [("a", 5, 1, True), ("b", 0, 39, False)]


def test_prefill_stops_before_the_first_missing_row(house: House) -> None:
    """The text before the picture is computed while the tower runs; others are not blocked."""
    rows = make_rows(10, 6, 4)
    house.add(make_state("a", 20, rows=rows))
    house.add(make_state("b", 3, max_tokens=1))
    assert house.plan() == [("a", 0, 10, False), ("b", 0, 3, True)]
    assert not house.scheduler.has_work and house.plan() == []
    rows.add(0, 0, torch.zeros(2, 1))
    assert house.scheduler.has_work
    assert house.plan() == [("a", 10, 2, False)]
    rows.add(0, 2, torch.zeros(4, 1))
    assert house.plan() == [("a", 12, 8, True)]


def test_more_decodes_than_may_run_take_turns(house: House) -> None:
    for name in "abcd":
        house.add(make_state(name, 1, max_tokens=5))
    house.plan()
    seen = [name for _ in range(4) for name, *_ in house.plan()]
    assert seen == list("abcdabcdabcd")


def test_prefill_role_parks_after_its_token(house: House) -> None:
    state = house.add(make_state("a", 5, role=Role.PREFILL))
    assert house.plan() == [("a", 0, 5, True)]
    assert state.parked and not house.scheduler.has_work
    assert house.scheduler.get(state.key) is state and house.pool.holds(state.key, 5)


def test_decode_role_computes_only_its_last_token(house: House) -> None:
    house.add(make_state("a", 9, role=Role.DECODE))
    assert house.plan() == [("a", 8, 1, True)]


def test_decode_without_room_waits_while_others_can_go_on() -> None:
    house = House(num_blocks=2)
    house.add(make_state("a", 16, max_tokens=3))
    house.add(make_state("b", 14, max_tokens=3))
    assert len(house.plan()) == 2
    assert house.plan() == [("b", 14, 1, True)]
    assert house.plan() == [("b", 15, 1, True)]
    assert house.plan() == [("a", 16, 1, True)]
    house.check()


def test_a_full_house_names_the_one_that_must_end() -> None:
    """Two requests need a block, none is left: the shorter one makes room."""
    house = House(num_blocks=3)
    house.add(make_state("a", 32, max_tokens=9))
    house.add(make_state("b", 16, max_tokens=9))
    house.plan()
    house.plan()
    step = house.scheduler.schedule()
    assert step == Step((), (RequestKey("b", 0),))
    house.release(RequestKey("b", 0))
    assert house.plan() == [("a", 32, 1, True)]
    house.check()


def test_finish_reasons_count_from_the_first_attempt() -> None:
    state = make_state("a", 5, max_tokens=8, first_index=6)
    assert state.accept(3) is None
    assert state.accept(3) is FinishReason.LENGTH
    assert make_state("a", 5, stop=(3, 4)).accept(4) is FinishReason.STOP
    assert make_state("a", 5, stop=(4,), max_tokens=1).accept(4) is FinishReason.STOP


@pytest.mark.parametrize(
    ("num_tokens", "role", "first_index"),
    [(0, Role.FULL, 0), (1, Role.DECODE, 0), (5, Role.FULL, 8), (5, Role.DECODE, 7)],
)
def test_requests_with_nothing_to_do_are_refused(
    num_tokens: int, role: Role, first_index: int
) -> None:
    with pytest.raises(InternalError):
        make_state("a", num_tokens, role=role, first_index=first_index)


class Life(RuleBasedStateMachine):
    """Requests of all roles come, take steps, get rows late, and leave at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.house = House(num_blocks=12)
        self.live: dict[RequestKey, RequestState] = {}
        self.num_rows: dict[RequestKey, int] = {}
        self.born = 0

    @rule(
        role=st.sampled_from(Role),
        before=st.integers(1, 30),
        num_rows=st.integers(0, 40),
        spare=st.integers(0, 20),
        max_tokens=st.integers(2, 20),
    )
    def arrive(self, role: Role, before: int, num_rows: int, spare: int, max_tokens: int) -> None:
        self.born += 1
        rows = make_rows(before, num_rows, 2) if num_rows and role is not Role.DECODE else None
        num = before + num_rows + 2
        state = make_state(f"r{self.born}", num, role=role, rows=rows, max_tokens=max_tokens)
        if self.house.pool.reserve(state.key, num + spare):
            self.house.scheduler.add(state)
            self.live[state.key] = state
            self.num_rows[state.key] = num_rows

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def land(self, data: st.DataObject) -> None:
        state = data.draw(st.sampled_from(list(self.live.values())))
        rows = state.request.embeddings
        if rows is not None and rows.ready_tokens < state.num_prompt:
            missing = state.num_prompt - 2 - rows.ready_tokens
            num = data.draw(st.integers(1, missing))
            before = rows.ready_tokens
            rows.add(0, self.num_rows[state.key] - missing, torch.zeros(num, 1))
            assert rows.ready_tokens >= before + num

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(list(self.live)))
        self._release(key)
        self._release(key)

    @rule(stop=st.booleans())
    def step(self, stop: bool) -> None:
        """`stop` ends whatever samples first."""
        scheduler = self.house.scheduler
        work = scheduler.has_work
        step = scheduler.schedule()
        assert (step is not None) == work
        if step is None:
            return
        assert bool(step.chunks) != bool(step.starved)
        self._check_limits(step)
        for chunk in step.chunks:
            scheduler.complete(chunk)
            if chunk.samples and (chunk.state.accept(5) or stop):
                stop = False
                if chunk.state.request.role is not Role.PREFILL:
                    self._release(chunk.state.key)
        for key in step.starved:
            self._release(key)

    @invariant()
    def books_balance(self) -> None:
        self.house.check()
        assert self.house.pool.keys() == set(self.live)
        assert {state.key for state in self.house.scheduler.states()} == set(self.live)

    def teardown(self) -> None:
        for key in list(self.live):
            self._release(key)
        self.books_balance()
        assert self.house.pool.num_used == 0

    def _release(self, key: RequestKey) -> None:
        self.house.release(key)
        self.live.pop(key, None)

    @staticmethod
    def _check_limits(step: Step) -> None:
        assert sum(chunk.num for chunk in step.chunks) <= BUDGET
        decodes = [not chunk.state.in_prompt for chunk in step.chunks]
        assert sum(decodes) <= RUNNING and decodes == sorted(decodes, reverse=True)
        assert len({chunk.state.key for chunk in step.chunks}) == len(step.chunks)
        for chunk in step.chunks:
            rows = chunk.state.request.embeddings
            end = chunk.first + chunk.num
            assert chunk.first == chunk.state.num_computed and chunk.num > 0
            if chunk.state.in_prompt:
                assert rows is None or end <= rows.ready_tokens
                assert chunk.samples == (end == chunk.state.num_prompt)
            else:
                assert chunk.samples and end == len(chunk.state.token_ids)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
