"""Which prompt tokens go into the next step. Pure: decisions in, decisions out.

In order of admission, up to a budget. A prompt whose next row has not landed is passed over; it
blocks nobody. Prefill is never preempted.
"""

from __future__ import annotations

from epd.engine.chunk import Chunk
from epd.engine.request import RequestState
from epd.types import RequestKey


class Prefills:
    """Requests with prompt tokens left to compute."""

    def __init__(self) -> None:
        self._states: dict[RequestKey, RequestState] = {}

    def add(self, state: RequestState) -> None:
        """Its blocks are reserved."""
        self._states[state.key] = state

    def get(self, key: RequestKey) -> RequestState | None:
        """A request that is here."""
        return self._states.get(key)

    def remove(self, key: RequestKey) -> None:
        """It is done or gone; unknown keys are ignored."""
        self._states.pop(key, None)

    def states(self) -> list[RequestState]:
        """All of them, in order of admission."""
        return list(self._states.values())

    @property
    def num_ready(self) -> int:
        """Requests of which a token could be computed."""
        return sum(state.num_ready > 0 for state in self._states.values())

    @property
    def num_arriving(self) -> int:
        """Of these, those with media."""
        return sum(state.has_media and state.num_ready > 0 for state in self._states.values())

    @property
    def has_work(self) -> bool:
        """Could a token be computed?"""
        return any(state.num_ready for state in self._states.values())

    @property
    def any_grammar(self) -> bool:
        """Is the first token of one of those that could be computed held to a grammar?"""
        found = (state for state in self._states.values() if state.request.sampling.grammar)
        return any(state.num_ready for state in found)

    def plan(self, budget: int, *, hold: bool) -> list[Chunk]:
        """Chunks of at most `budget` tokens together; an atomic span may exceed it, alone.

        `hold`: prompts with media wait.
        """
        chunks: list[Chunk] = []
        for state in self._states.values():
            if budget <= 0:
                break
            if hold and state.has_media:
                continue
            num = state.next_chunk(budget, alone=not chunks)
            if num:
                last = state.num_computed + num == state.num_prompt
                samples = tuple(state.choices.values()) if last else ()
                chunks.append(Chunk(state, state.num_computed, num, samples))
                budget -= num
        return chunks

    def check(self) -> None:
        """All have something left to do."""
        assert all(state.in_prompt for state in self._states.values())
