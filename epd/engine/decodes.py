"""Which choices get their next token, who makes room for them, and who comes back. Pure.

All take turns where more could run than may. When a block is needed and none is left, the youngest
request moves to host memory with all its choices, or ends where that is full too. It is the only
one that can lose progress, so the oldest always goes on. The oldest of those that moved comes back
first, as soon as there is room for what it has and for its next tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice

from epd.engine.chunk import Chunk, Move, MoveKind
from epd.engine.kv.blocks import BlockPool, Suspended
from epd.engine.kv.host import HostBlocks
from epd.engine.request import Choice, RequestState
from epd.types import RequestKey


@dataclass(slots=True)
class DecodePlan:
    """One token each. `lost` found no room anywhere; their blocks are free already.

    `waits`: somebody needs room, which is made when nothing is ahead any more.
    """

    chunks: list[Chunk] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    lost: list[RequestState] = field(default_factory=list)
    waits: bool = False


@dataclass(frozen=True, slots=True)
class _Away:
    state: RequestState
    pages: Suspended


class Decodes:
    """Requests that generate; `most_running` choices in one step."""

    def __init__(self, pool: BlockPool, host: HostBlocks, *, most_running: int) -> None:
        self._pool = pool
        self._host = host
        self._most_running = most_running
        self._states: dict[RequestKey, RequestState] = {}
        self._turns: dict[tuple[RequestKey, int], tuple[RequestState, Choice]] = {}
        self._away: dict[RequestKey, _Away] = {}
        self.num_preempted = 0

    # ---- who is here

    def add(self, state: RequestState) -> None:
        """Its tables are forked."""
        self._states[state.key] = state
        for choice in state.choices.values():
            choice.room = 0
            self._turns[choice.name] = (state, choice)

    def get(self, key: RequestKey) -> RequestState | None:
        """A request that is here or away."""
        away = self._away.get(key)
        return self._states.get(key) if away is None else away.state

    def remove(self, key: RequestKey) -> None:
        """It is gone; unknown keys are ignored."""
        state = self._states.pop(key, None)
        if state is not None:
            for choice in state.choices.values():
                del self._turns[choice.name]
        if self._away.pop(key, None) is not None:
            self._host.give_back(key)

    def end(self, state: RequestState, choice: Choice) -> None:
        """One of its choices has ended."""
        del state.choices[choice.number]
        away = self._away.get(state.key)
        if away is not None:
            del away.pages.tables[choice.number]
        elif self._turns.pop(choice.name, None) is not None:
            self._pool.drop(state.key, choice.number)

    def states(self) -> list[RequestState]:
        """All of them, here and away."""
        return [*self._states.values(), *(away.state for away in self._away.values())]

    @property
    def num_requests(self) -> int:
        """Of them, here and away."""
        return len(self._states) + len(self._away)

    @property
    def any_away(self) -> bool:
        """Does somebody wait to come back?"""
        return bool(self._away)

    @property
    def has_work(self) -> bool:
        """Could anybody go on, make room or come back?"""
        return bool(self._turns) or (
            bool(self._away) and self._pool.could_resume(self._oldest_away.pages)
        )

    # ---- a step

    def plan(self) -> DecodePlan:
        """The next token of as many choices as may run."""
        plan = DecodePlan()
        picked = list(islice(self._turns.values(), self._most_running))
        self._make_room(picked, plan)
        for state, choice in picked:
            if choice.name in self._turns:
                self._run(state, choice, plan)
        if not plan.lost and not any(move.kind is MoveKind.SAVE for move in plan.moves):
            self._bring_back(plan)
        return plan

    def plan_ahead(self) -> DecodePlan:
        """The next token of those whose last one may still be ahead, also of first ones.

        Nobody makes room or comes back; where that is due nobody goes on, though moves may be left.
        """
        picked = list(islice(self._turns.values(), self._most_running))
        picked = [(state, choice) for state, choice in picked if not state.full(choice)]
        plan = DecodePlan(waits=bool(self._away))
        for state, choices in [] if plan.waits else _growing(picked):
            if not self._extend(state, choices, plan):
                plan.waits = True
                break
        if plan.waits:
            return plan
        for state, choice in picked:
            self._run(state, choice, plan)
        return plan

    def check(self) -> None:
        """Choices take turns where their request is; nobody is in two places."""
        assert not self._states.keys() & self._away.keys()
        names = {c.name for state in self._states.values() for c in state.choices.values()}
        assert names == self._turns.keys(), "turns of choices that are not there"
        assert self._host.keys() == self._away.keys(), "host blocks of nobody"
        for state in self.states():
            assert not state.in_prompt and state.choices
            for choice in state.choices.values():
                assert choice.tokens or choice.ahead
                assert choice.num_prompt == state.num_prompt
        for state in self._states.values():
            for choice in state.choices.values():
                computed = choice.num_tokens - 1
                assert self._pool.holds(state.key, computed, choice.number), "KV without blocks"
        for away in self._away.values():
            assert away.pages.tables.keys() == away.state.choices.keys()
            assert self._pool.could_ever_resume(away.pages)

    @property
    def _oldest_away(self) -> _Away:
        return min(self._away.values(), key=lambda away: away.state.age)

    def _run(self, state: RequestState, choice: Choice, plan: DecodePlan) -> None:
        """Those that run go to the back, so that nobody starves in a full house."""
        plan.chunks.append(Chunk(state, choice.num_tokens - 1, 1, (choice,), choice))
        self._turns[choice.name] = self._turns.pop(choice.name)

    def _make_room(self, picked: list[tuple[RequestState, Choice]], plan: DecodePlan) -> None:
        """Older requests first, so that nobody who has got room loses it in the same step."""
        for state, choices in _growing(picked):
            while state.key in self._states and not self._extend(state, choices, plan):
                self._preempt(max(self._states.values(), key=lambda other: other.age), plan)

    def _extend(self, state: RequestState, choices: list[Choice], plan: DecodePlan) -> bool:
        lengths = {choice.number: choice.num_tokens for choice in choices}
        copies = self._pool.extend(state.key, lengths)
        if copies is None:
            return False
        if copies:
            plan.moves.append(Move(MoveKind.COPY, tuple(copies)))
        size = self._pool.block_size
        for choice in choices:
            choice.room = self._pool.blocks_for(choice.num_tokens) * size
        return True

    def _preempt(self, state: RequestState, plan: DecodePlan) -> None:
        computed = {number: c.num_tokens - 1 for number, c in state.choices.items()}
        self.remove(state.key)
        pages = self._pool.suspend(state.key, computed)
        kept = self._pool.could_ever_resume(pages)
        slots = self._host.take(state.key, len(pages.blocks)) if kept else None
        if slots is None:
            plan.lost.append(state)
            return
        self.num_preempted += 1
        plan.moves.append(Move(MoveKind.SAVE, tuple(zip(pages.blocks, slots, strict=True))))
        self._away[state.key] = _Away(state, pages)

    def _bring_back(self, plan: DecodePlan) -> None:
        while self._away and len(plan.chunks) < self._most_running:
            away = self._oldest_away
            if not self._pool.could_resume(away.pages):
                return
            key, slots = away.state.key, self._host.of(away.state.key)
            loads = tuple((slots[n], to) for n, to in self._pool.resume(key, away.pages))
            if loads:
                plan.moves.append(Move(MoveKind.LOAD, loads))
            self.remove(key)
            self.add(away.state)
            choices = list(away.state.choices.values())
            grown = self._extend(away.state, choices, plan)
            assert grown, "came back without room to go on"
            for choice in choices[: self._most_running - len(plan.chunks)]:
                self._run(away.state, choice, plan)


def _growing(
    picked: list[tuple[RequestState, Choice]],
) -> list[tuple[RequestState, list[Choice]]]:
    """Those whose next token has no room in their blocks, older requests first."""
    growing: dict[RequestKey, tuple[RequestState, list[Choice]]] = {}
    for state, choice in picked:
        if choice.num_tokens > choice.room:
            growing.setdefault(state.key, (state, []))[1].append(choice)
    return sorted(growing.values(), key=lambda found: found[0].age)
