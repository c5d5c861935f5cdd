"""A pool, host blocks and a scheduler, with pages that hold symbols instead of KV.

The symbol of a token stands for all tokens up to it: what its KV depends on. Every step first
checks that the pages hold exactly that for each sequence that it computes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from epd.engine import EngineRequest, MultiModalEmbeddingData, Role
from epd.engine.chunk import Chunk, Move, MoveKind
from epd.engine.kv.blocks import BlockPool
from epd.engine.kv.host import HostBlocks
from epd.engine.kv.prefixes import PageHashes
from epd.engine.request import Choice, RequestState
from epd.engine.scheduler import Scheduler, Step
from epd.prefix import prefix_of
from epd.types import (
    ItemKey,
    ItemLayout,
    Modality,
    Prompt,
    PromptItem,
    RequestKey,
    SamplingParams,
)

SIZE = 16
BUDGET, RUNNING = 40, 3


def make_item(num_rows: int, *, atomic: bool = False, content: bytes = b"") -> PromptItem:
    """One token and one row for each."""
    layout = ItemLayout(
        modality=Modality.IMAGE,
        token_ids=(0,) * num_rows,
        row_spans=((0, num_rows),),
        width=1,
        dtype="float32",
        content_key=content,
        atomic=atomic,
    )
    return PromptItem(item=ItemKey("r", 0, 0), encoder="encode-0", layout=layout)


def make_rows(
    before: int, num_rows: int, after: int, *, atomic: bool = False
) -> MultiModalEmbeddingData:
    """One item between two texts, one value per row."""
    prompt = Prompt(text=((1,) * before, (1,) * after), items=(make_item(num_rows, atomic=atomic),))
    return MultiModalEmbeddingData(prompt)


def make_request(
    name: str,
    token_ids: Sequence[int],
    *,
    role: Role = Role.FULL,
    rows: MultiModalEmbeddingData | None = None,
    max_tokens: int = 8,
    first_index: int = 0,
    stop: tuple[int, ...] = (),
    n: int = 1,
) -> EngineRequest:
    return EngineRequest(
        key=RequestKey(name, 0),
        token_ids=list(token_ids),
        positions=torch.empty(0),
        position_delta=0,
        sampling=SamplingParams(max_tokens=max_tokens, stop_token_ids=stop, n=n),
        first_index=first_index,
        embeddings=rows,
        role=role,
        choices=tuple((choice, 2) for choice in range(n)) if role is Role.DECODE else (),
    )


def symbols(token_ids: Sequence[int]) -> list[int]:
    """What the KV of each token depends on."""
    found = [0]
    for token in token_ids:
        found.append(hash((found[-1], token)))
    return found[1:]


def said(choice: Choice, place: int) -> int:
    """The choice's token at that place, counted from the prompt's first."""
    return (place + choice.number) % 7 + 2


class House:
    """Carries steps out on symbols; every choice of a request says something else.

    `late`: as on a GPU, a step lands when the next one has been launched.
    """

    def __init__(
        self,
        *,
        num_blocks: int = 40,
        num_host_blocks: int = 40,
        late: bool = False,
        **limits: int,
    ) -> None:
        self.late = late
        self._flying: tuple[Chunk, ...] = ()
        self.pool = BlockPool(num_blocks=num_blocks, block_size=SIZE)
        self.host = HostBlocks(num_host_blocks)
        chosen = {"max_step_tokens": BUDGET, "max_running": RUNNING, **limits}
        self.scheduler = Scheduler(self.pool, self.host, **chosen)
        self.pages = [[0] * SIZE for _ in range(num_blocks)]
        self.host_pages = [[0] * SIZE for _ in range(num_host_blocks)]
        self.answers: dict[tuple[RequestKey, int], list[int]] = {}
        self.lost: list[RequestKey] = []
        self.finished: list[RequestKey] = []

    def add(
        self,
        request: EngineRequest,
        *,
        reserve: int | None = None,
        prompt: Prompt | None = None,
    ) -> RequestState | None:
        """Reserve and start; None where there is no room. With a prompt, cached pages are used."""
        prefix = None if prompt is None else prefix_of(prompt, b"root")
        num = len(request.token_ids)
        most_cached = num if request.role is Role.DECODE else num - 1
        hashes = [] if prefix is None else PageHashes(prefix, block_size=SIZE).leading(most_cached)
        found = self.pool.reserve(request.key, reserve or num, hashes)
        if found is None:
            return None
        if request.role is Role.DECODE:
            self._write(self.pool.table(request.key) or [], request.token_ids, found * SIZE, num)
        state = RequestState(request, cached=found * SIZE, prefix=prefix, block_size=SIZE)
        if request.embeddings is not None:
            request.embeddings.skip_before(state.num_computed)
        for choice in state.choices.values():
            self.answers[choice.name] = list(choice.tokens)
        self.scheduler.add(state)
        return state

    @property
    def has_work(self) -> bool:
        """Would step() do something?"""
        return bool(self._flying) or self.scheduler.has_work

    def step(self, *, hold: bool = False) -> Step | None:
        """Plan a step and carry it out; the one before it lands now, if that has not."""
        before, self._flying = self._flying, ()
        if before:
            step = self.scheduler.schedule_ahead(hold=hold)
        else:
            work = self.scheduler.has_work
            step = self.scheduler.schedule(hold=hold)
            assert (step is not None) == work or hold
        chunks = () if step is None else self.launch(step)
        if self.late and any(chunk.samples for chunk in chunks):
            self._flying = chunks
        else:
            self.land(chunks)
        self.land(before)
        return step

    def plan(self, *, hold: bool = False) -> list[tuple[str, int, int, bool]]:
        """The next step in plain words, carried out."""
        step = self.step(hold=hold)
        if step is None:
            return []
        return [(c.state.key.request_id, c.first, c.num, bool(c.samples)) for c in step.chunks]

    def carry_out(self, step: Step) -> None:
        """At once."""
        self.land(self.launch(step))

    def launch(self, step: Step) -> tuple[Chunk, ...]:
        self.lost += [state.key for state in step.lost]
        for move in step.moves:
            self.move(move)
        for chunk in step.chunks:
            self._compute(chunk)
        for chunk in step.chunks:
            self.scheduler.launched(chunk)
        return step.chunks

    def land(self, chunks: Sequence[Chunk]) -> None:
        for chunk in chunks:
            self._complete(chunk)

    def move(self, move: Move) -> None:
        sources = self.host_pages if move.kind is MoveKind.LOAD else self.pages
        targets = self.host_pages if move.kind is MoveKind.SAVE else self.pages
        for source, target in move.pairs:
            targets[target] = list(sources[source])

    def release(self, key: RequestKey) -> None:
        self.scheduler.remove(key)
        self.pool.release(key)

    def end_choice(self, state: RequestState, choice: Choice) -> None:
        self.scheduler.end_choice(state, choice)
        if not state.choices and state.request.role is not Role.PREFILL:
            self.finished.append(state.key)
            self.release(state.key)

    def check(self) -> None:
        self.pool.check()
        self.host.check()
        self.scheduler.check()

    def _compute(self, chunk: Chunk) -> None:
        state, end = chunk.state, chunk.first + chunk.num
        ids = state.prompt[:end]
        if chunk.choice is not None:
            ids = state.tokens(chunk.choice, 0, end)
            assert end - len(ids) == chunk.choice.ahead
            ids = ids + [said(chunk.choice, place) for place in range(len(ids), end)]
        assert len(ids) == end
        assert ids[chunk.first :] == chunk.token_ids or (chunk.choice and chunk.choice.ahead)
        table = self.pool.table(state.key, chunk.table) or []
        held = [value for block in table for value in self.pages[block]]
        assert held[: chunk.first] == symbols(ids)[: chunk.first], "pages hold something else"
        self._write(table, ids, chunk.first, end)

    def _write(self, table: Sequence[int], ids: Sequence[int], first: int, end: int) -> None:
        found = symbols(ids)
        for place in range(first, end):
            self.pages[table[place // SIZE]][place % SIZE] = found[place]

    def _complete(self, chunk: Chunk) -> None:
        state = chunk.state
        for choice, lives in zip(chunk.samples, self.scheduler.landed(chunk), strict=True):
            if not lives:
                continue
            token = said(choice, choice.num_prompt + len(choice.tokens))
            self.answers[choice.name].append(token)
            if state.accept(choice, token):
                self.scheduler.end_choice(state, choice)
        here = self.scheduler.get(state.key) is state
        if here and not state.choices and state.request.role is not Role.PREFILL:
            self.finished.append(state.key)
            self.release(state.key)
