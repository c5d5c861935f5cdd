"""What goes into the next step. Pure: decisions in, decisions out.

Running decodes come first, then prefill chunks, together up to `max_step_tokens`: that bounds the
delay of running streams. Every request is in one place: prefills, decodes, or parked (a PREFILL
request of which nothing more is to be asked, its KV kept for whoever pulls it).

A step is launched, then it lands; the next one may be planned and launched in between. Decodes of
that one go on from tokens that are ahead: known to the device, not yet to the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

from epd.engine.chunk import Chunk, Move
from epd.engine.decodes import Decodes
from epd.engine.kv.blocks import PROMPT, BlockPool
from epd.engine.kv.host import HostBlocks
from epd.engine.prefills import Prefills
from epd.engine.request import Choice, RequestState, Role
from epd.types import RequestKey


@dataclass(frozen=True, slots=True)
class Step:
    """`moves` first, in order, then one packed forward. `lost` requests have no room anywhere."""

    chunks: tuple[Chunk, ...]
    moves: tuple[Move, ...] = ()
    lost: tuple[RequestState, ...] = ()


class Scheduler:
    """Holds every started request until it is removed."""

    def __init__(
        self, pool: BlockPool, host: HostBlocks, *, max_step_tokens: int, max_running: int
    ) -> None:
        self._pool = pool
        self._max_step_tokens = max_step_tokens
        self._ages = count()
        self._prefills = Prefills()
        self._decodes = Decodes(pool, host, most_running=min(max_running, max_step_tokens))
        self._parked: dict[RequestKey, RequestState] = {}

    def add(self, state: RequestState) -> None:
        """Admit a request; its blocks are reserved."""
        assert self.get(state.key) is None, "started twice"
        state.age = next(self._ages)
        if state.in_prompt:
            self._prefills.add(state)
            return
        self._publish_prompt(state, 0)
        self._pool.fork(state.key, state.choices, state.num_prompt)
        self._decodes.add(state)

    def get(self, key: RequestKey) -> RequestState | None:
        """A request that was started and not removed."""
        return self._prefills.get(key) or self._decodes.get(key) or self._parked.get(key)

    def remove(self, key: RequestKey) -> RequestState | None:
        """Forget a request in any state; what it was. Its blocks in the pool stay reserved."""
        state = self.get(key)
        self._prefills.remove(key)
        self._decodes.remove(key)
        self._parked.pop(key, None)
        return state

    def states(self) -> list[RequestState]:
        """All of them."""
        return [*self._prefills.states(), *self._decodes.states(), *self._parked.values()]

    @property
    def any_preempted(self) -> bool:
        """Does a request wait in host memory? Then no new one should be let in."""
        return self._decodes.any_away

    @property
    def num_preempted(self) -> int:
        """How often a request moved to host memory."""
        return self._decodes.num_preempted

    @property
    def num_requests(self) -> int:
        """That generate, or have prompt tokens that could be computed.

        None that generates where none of them can go on before a prompt is done.
        """
        decodes = self._decodes.num_requests if self._decodes.has_work else 0
        return decodes + self._prefills.num_ready

    @property
    def num_arriving(self) -> int:
        """Of these, those with prompt tokens of media."""
        return self._prefills.num_arriving

    @property
    def has_work(self) -> bool:
        """Would a step do something?"""
        return self._decodes.has_work or self._prefills.has_work

    def schedule(self, *, hold: bool = False) -> Step | None:
        """Plan one step; nothing is counted before launched(). Nothing may be ahead.

        `hold`: prompts with media wait.
        """
        plan = self._decodes.plan()
        prefills = self._prefills.plan(self._max_step_tokens - len(plan.chunks), hold=hold)
        if not (plan.chunks or prefills or plan.moves or plan.lost):
            return None
        return Step((*plan.chunks, *prefills), tuple(plan.moves), tuple(plan.lost))

    def schedule_ahead(self, *, hold: bool = False) -> Step | None:
        """Plan one while another computes; None where nothing should go before that is read.

        A first token within a grammar waits: the host would, for its mask, before it reads.
        `hold`: prompts with media wait.
        """
        if self._prefills.any_grammar:
            return None
        plan = self._decodes.plan_ahead()
        budget = 0 if plan.waits else self._max_step_tokens - len(plan.chunks)
        prefills = self._prefills.plan(budget, hold=hold)
        if not (plan.chunks or prefills or plan.moves):
            return None
        return Step((*plan.chunks, *prefills), tuple(plan.moves))

    def launched(self, chunk: Chunk) -> None:
        """The device was asked for it. What it is asked for later finds the KV of its tokens.

        So a prompt's pages may be found from here on, and where all of it was asked for, FULL
        generates: its first tokens are ahead. PREFILL waits to be pulled.
        """
        for choice in chunk.samples:
            choice.ahead += 1
        state = chunk.state
        if chunk.choice is not None:
            return
        before, state.num_computed = state.num_computed, chunk.first + chunk.num
        self._publish_prompt(state, before)
        if not state.in_prompt:
            self._prompt_done(state)

    def landed(self, chunk: Chunk) -> list[bool]:
        """The host knows what it gave; whether each choice that sampled is still there to take it.

        A page of an answer is published only here: what it is known by are its ids.
        """
        for choice in chunk.samples:
            choice.ahead -= 1
        live = [self._lives(chunk.state, choice) for choice in chunk.samples]
        if chunk.choice is not None and all(live):
            self._publish_choice(chunk.state, chunk.choice, chunk.first + chunk.num)
        return live

    def end_choice(self, state: RequestState, choice: Choice) -> None:
        """Nothing more is to be sampled for it. Whoever ends the last one removes the request."""
        self._decodes.end(state, choice)

    def check(self) -> None:
        """Every request is in one place and holds blocks for what it has computed."""
        keys = [state.key for state in self.states()]
        assert len(keys) == len(set(keys)), "request in two places"
        self._prefills.check()
        self._decodes.check()
        for state in (*self._prefills.states(), *self._parked.values()):
            assert state.num_computed <= state.num_prompt
            assert self._pool.holds(state.key, state.num_prompt), "prompt without blocks"

    def _lives(self, state: RequestState, choice: Choice) -> bool:
        return self.get(state.key) is state and state.choices.get(choice.number) is choice

    def _prompt_done(self, state: RequestState) -> None:
        self._prefills.remove(state.key)
        if state.request.role is Role.PREFILL:
            self._parked[state.key] = state
            return
        self._pool.fork(state.key, state.choices, state.num_prompt)
        self._decodes.add(state)

    def _publish_prompt(self, state: RequestState, before: int) -> None:
        """Pages that became full after the first `before` tokens."""
        if state.hashes is None:
            return
        size = self._pool.block_size
        for page in range(before // size, state.num_computed // size):
            page_hash = state.hashes.page(page, lambda first, end: state.prompt[first:end])
            self._pool.publish(state.key, PROMPT, page, page_hash)

    def _publish_choice(self, state: RequestState, choice: Choice, end: int) -> None:
        """The page that the choice's token before `end` may have filled."""
        page, rest = divmod(end, self._pool.block_size)
        if rest or choice.hashes is None:
            return
        page_hash = choice.hashes.page(
            page - 1, lambda first, end: state.tokens(choice, first, end)
        )
        self._pool.publish(state.key, choice.number, page - 1, page_hash)
