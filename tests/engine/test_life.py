"""Requests of all roles come, take steps, get rows late, lose choices, make room and leave at any
time, in pools that hold little more than one of them, also while a step flies; the pages always
hold what they should.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from epd.engine import EngineRequest, MultiModalEmbeddingData, Role
from epd.engine.chunk import Chunk, MoveKind
from epd.engine.request import RequestState
from epd.engine.scheduler import Step
from epd.types import Prompt, RequestKey
from tests.engine.house import BUDGET, RUNNING, SIZE, House, make_item, make_request

MOST_TOKENS = 24
PROMPT_TOKENS = 60
IN_FLIGHT = 8


@dataclass
class Asked:
    """A request that was let in. `landed` counts its rows."""

    request: EngineRequest
    num_rows: int
    landed: int = 0


class Life(RuleBasedStateMachine):
    """What a worker and its peers do to a pool and a scheduler."""

    @initialize(
        host=st.sampled_from([0, 3, 100]),
        running=st.sampled_from([1, RUNNING, 20]),
        late=st.booleans(),
    )
    def open(self, host: int, running: int, late: bool) -> None:
        """1.1 requests: prompt, answer, and a tenth."""
        blocks = -(-(PROMPT_TOKENS + MOST_TOKENS) * 11 // 10 // SIZE)
        self.house = House(num_blocks=blocks, num_host_blocks=host, max_running=running, late=late)
        self.running = running
        self.asked: dict[RequestKey, Asked] = {}
        self.born = 0

    @rule(
        role=st.sampled_from(Role),
        word=st.sampled_from([1, 5]),
        before=st.integers(1, 34),
        num_rows=st.integers(0, 20),
        content=st.sampled_from([b"cat", b"dog"]),
        atomic=st.booleans(),
        spare=st.integers(0, 20),
        max_tokens=st.integers(2, MOST_TOKENS),
        n=st.sampled_from([1, 1, 1, 2, 3]),
        cached=st.booleans(),
    )
    def arrive(
        self,
        role: Role,
        word: int,
        before: int,
        num_rows: int,
        content: bytes,
        atomic: bool,
        spare: int,
        max_tokens: int,
        n: int,
        cached: bool,
    ) -> None:
        """Prompts begin alike, so that pages are shared; symbols tell pictures apart by ids."""
        if len(self.asked) == IN_FLIGHT or self.house.scheduler.any_preempted:
            return
        self.born += 1
        token = 3 if content == b"cat" else 4
        item = make_item(num_rows, atomic=atomic, content=content)
        item = replace(item, layout=replace(item.layout, token_ids=(token,) * num_rows))
        text = ((word,) * before, (1, 1)) if num_rows else ((word,) * (before + 2),)
        prompt = Prompt(text=text, items=(item,) if num_rows else ())
        with_rows = num_rows and role is not Role.DECODE
        request = make_request(
            f"r{self.born}",
            prompt.token_ids(),
            role=role,
            rows=MultiModalEmbeddingData(prompt) if with_rows else None,
            max_tokens=max_tokens,
            n=n,
        )
        room = prompt.num_tokens + spare
        if self.house.add(request, reserve=room, prompt=prompt if cached else None):
            self.asked[request.key] = Asked(request, num_rows if with_rows else 0)

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), num=st.integers(1, 20))
    def land(self, data: st.DataObject, num: int) -> None:
        """The next rows of a request."""
        self._land(data.draw(st.sampled_from(list(self.asked.values()))), num)

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """Cancelled, or pulled by decode; said twice."""
        key = data.draw(st.sampled_from(list(self.asked)))
        self.house.release(key)
        self.house.release(key)
        del self.asked[key]

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        """The gateway has seen a stop string in one choice."""
        key = data.draw(st.sampled_from(list(self.asked)))
        state = self.house.scheduler.get(key)
        if state is not None and state.choices and not state.in_prompt:
            choice = data.draw(st.sampled_from(list(state.choices.values())))
            self.house.end_choice(state, choice)
            self._forget_ended()

    @rule(times=st.integers(1, 12))
    def step(self, times: int) -> None:
        """Some forwards."""
        for _ in range(times):
            self._step()

    @invariant()
    def books_balance(self) -> None:
        """Nothing is lost, doubled or left behind."""
        if not hasattr(self, "house"):
            return
        self.house.check()
        states = {state.key for state in self.house.scheduler.states()}
        assert states == set(self.asked)
        assert self.house.pool.keys() == states - self.house.host.keys()

    def teardown(self) -> None:
        """All rows land, nobody new comes: everyone who stays has an end."""
        if not hasattr(self, "house"):
            return
        for asked in self.asked.values():
            self._land(asked, asked.num_rows)
        left = sum(PROMPT_TOKENS + a.request.sampling.n * MOST_TOKENS for a in self.asked.values())
        steps = 0
        while self._pull() or self.house.has_work:
            self._step()
            self.books_balance()
            steps += 1
            assert steps <= 6 * left + 1, "steps without progress"
        assert not self.asked, "somebody never ended"
        assert self.house.pool.num_used == self.house.host.num_used == 0

    def _land(self, asked: Asked, num: int) -> None:
        rows = asked.request.embeddings
        num = min(num, asked.num_rows - asked.landed)
        if rows is not None and num:
            rows.add(0, asked.landed, torch.zeros(num, 1))
            asked.landed += num

    def _step(self) -> None:
        answered = {name: len(answer) for name, answer in self.house.answers.items()}
        step = self.house.step()
        if step is not None:
            self._check_limits(step)
        for name, answer in self.house.answers.items():
            assert len(answer) - answered[name] <= 1, "two tokens of one choice in a step"
        self._forget_ended()

    def _forget_ended(self) -> None:
        for key in [*self.house.finished, *self.house.lost]:
            self.asked.pop(key, None)

    def _pull(self) -> bool:
        """What is parked is pulled by decode at last; whether anything was."""
        before = len(self.asked)
        for key, asked in list(self.asked.items()):
            state = self.house.scheduler.get(key)
            assert state is not None
            if asked.request.role is Role.PREFILL and not state.in_prompt:
                self.house.release(key)
                del self.asked[key]
        return len(self.asked) < before

    def _check_limits(self, step: Step) -> None:
        decodes = [chunk.choice is not None for chunk in step.chunks]
        assert sum(decodes) <= self.running and decodes == sorted(decodes, reverse=True)
        spent = sum(chunk.num for chunk in step.chunks)
        assert spent <= BUDGET + 20, "only an atomic span may exceed the budget"
        names = [(chunk.state.key, chunk.table) for chunk in step.chunks]
        assert len(set(names)) == len(names)
        assert step.chunks or step.moves or step.lost, "a step that does nothing"
        for state in step.lost:
            assert self.house.host.num_blocks < 100 or len(state.choices) > 1, "room was there"
        written = [to for m in step.moves if m.kind is not MoveKind.SAVE for _, to in m.pairs]
        assert len(set(written)) == len(written)
        for chunk in step.chunks:
            self._check_chunk(chunk.state, chunk.first, chunk.first + chunk.num)

    @staticmethod
    def _check_chunk(state: RequestState, first: int, end: int) -> None:
        rows = state.request.embeddings
        if rows is not None and first < state.num_prompt:
            assert end <= rows.ready_tokens
            for start, stop in rows.atomic_spans:
                assert not start < end < stop, "an atomic span in two chunks"


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=100, stateful_step_count=40)


def test_eight_requests_in_a_pool_for_little_more_than_one_all_finish() -> None:
    """Each is let in as soon as there is room for its prompt and one token."""
    house = House(num_blocks=6, max_running=20)
    waiting = [make_request(f"r{n}", [n % 3] * (20 + n), max_tokens=64) for n in range(8)]
    preempted = steps = 0
    while waiting or house.scheduler.has_work:
        if waiting and not house.scheduler.any_preempted:
            room = len(waiting[0].token_ids) + 1
            if house.add(waiting[0], reserve=room) is not None:
                waiting.pop(0)
        step = house.step()
        house.check()
        preempted += step is not None and any(m.kind is MoveKind.SAVE for m in step.moves)
        steps += 1
        assert steps < 8 * 64 * 3
    assert not house.lost and len(house.finished) == 8 and preempted
    assert {len(answer) for answer in house.answers.values()} == {64}
    assert house.pool.num_used == house.host.num_used == 0


class Lagging(House):
    """What a step writes is there only when it has landed."""

    def __init__(self, *, late: bool) -> None:
        super().__init__(late=late)
        self._unwritten: list[tuple[Sequence[int], Sequence[int], int, int]] = []

    def _write(self, table: Sequence[int], ids: Sequence[int], first: int, end: int) -> None:
        self._unwritten.append((list(table), ids, first, end))

    def land(self, chunks: Sequence[Chunk]) -> None:
        while chunks and self._unwritten:
            super()._write(*self._unwritten.pop(0))
        super().land(chunks)


def test_a_step_that_goes_before_another_has_landed_needs_what_that_one_writes() -> None:
    """The control: symbols see it, and see nothing where steps land at once."""
    for late in (False, True):
        house = Lagging(late=late)
        house.add(make_request("a", [1] * 20))
        with pytest.raises(AssertionError, match="something else") if late else nullcontext():
            while house.has_work:
                house.step()
        assert bool(house.finished) is not late
