"""Which tokens go into the next step. Pure: decisions in, decisions out.

Running decodes come first, then prefill chunks in order of admission, up to `max_step_tokens`.
A prompt whose next row has not landed is passed over; it blocks nobody.
"""

from __future__ import annotations

from dataclasses import dataclass

from epd.engine.kv.blocks import BlockPool
from epd.engine.request import RequestState
from epd.types import RequestKey


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens [first, first + num) of a request. `samples`: its last row gives the next token."""

    state: RequestState
    first: int
    num: int
    samples: bool


@dataclass(frozen=True, slots=True)
class Step:
    """One packed forward. `starved` need a block that nobody can give: they have to end."""

    chunks: tuple[Chunk, ...]
    starved: tuple[RequestKey, ...] = ()


class Scheduler:
    """Holds every started request until it is removed."""

    def __init__(self, pool: BlockPool, *, max_step_tokens: int, max_running: int) -> None:
        self._pool = pool
        self._max_step_tokens = max_step_tokens
        self._max_running = max_running
        self._prefills: dict[RequestKey, RequestState] = {}
        self._decodes: dict[RequestKey, RequestState] = {}
        self._parked: dict[RequestKey, RequestState] = {}

    def add(self, state: RequestState) -> None:
        """Admit a request; its blocks are reserved."""
        assert self.get(state.key) is None, "started twice"
        self._place(state)

    def get(self, key: RequestKey) -> RequestState | None:
        """A request that was started and not removed."""
        return self._prefills.get(key) or self._decodes.get(key) or self._parked.get(key)

    def remove(self, key: RequestKey) -> RequestState | None:
        """Forget a request in any state; what it was."""
        state = self.get(key)
        for held in (self._prefills, self._decodes, self._parked):
            held.pop(key, None)
        return state

    def states(self) -> list[RequestState]:
        """All of them."""
        return [*self._prefills.values(), *self._decodes.values(), *self._parked.values()]

    @property
    def has_work(self) -> bool:
        """Would a step do something?"""
        return bool(self._decodes) or any(s.num_ready for s in self._prefills.values())

    def schedule(self) -> Step | None:
        """Plan one step; nothing is counted as computed before complete()."""
        chunks, starved = self._plan_decodes()
        budget = self._max_step_tokens - len(chunks)
        for state in self._prefills.values():
            num = min(state.num_ready, budget)
            if num:
                first = state.num_computed
                chunks.append(Chunk(state, first, num, first + num == state.num_prompt))
                budget -= num
        if not chunks and starved:
            # Nobody can go on: the one with the least to compute again makes room for the others.
            return Step((), (min(reversed(starved), key=lambda state: state.num_computed).key,))
        return Step(tuple(chunks)) if chunks else None

    def complete(self, chunk: Chunk) -> None:
        """The chunk's tokens have KV now."""
        state = chunk.state
        state.num_computed = chunk.first + chunk.num
        if state.key in self._prefills and not state.in_prompt:
            del self._prefills[state.key]
            self._place(state)

    def check(self) -> None:
        """Every request is in one place and holds blocks for what it has computed."""
        keys = [state.key for state in self.states()]
        assert len(keys) == len(set(keys)), "request in two places"
        assert all(state.in_prompt for state in self._prefills.values())
        assert all(state.parked for state in self._parked.values())
        for state in self.states():
            assert state.num_computed <= len(state.token_ids)
            assert self._pool.holds(state.key, state.num_computed), "KV without blocks"
        for state in self._decodes.values():
            assert not state.in_prompt and len(state.token_ids) - state.num_computed == 1

    def _place(self, state: RequestState) -> None:
        held = self._parked if state.parked else self._decodes
        (self._prefills if state.in_prompt else held)[state.key] = state

    def _plan_decodes(self) -> tuple[list[Chunk], list[RequestState]]:
        """One token each. Those that run go to the back, so that nobody starves in a full house."""
        chunks: list[Chunk] = []
        starved: list[RequestState] = []
        most = min(self._max_running, self._max_step_tokens)
        for key, state in list(self._decodes.items()):
            if len(chunks) == most:
                break
            if not self._pool.reserve(key, len(state.token_ids)):
                starved.append(state)
                continue
            chunks.append(Chunk(state, state.num_computed, 1, True))
            self._decodes[key] = self._decodes.pop(key)
        return chunks, starved
