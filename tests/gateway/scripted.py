"""A Service that answers with scripted runs and remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from epd.errors import EpdError, NotFound
from epd.gateway import CallSpec
from epd.observe import Path
from epd.types import FinishReason, RequestKey, SamplingParams, TokenLogprobs, TokenRun


@dataclass(frozen=True)
class Last:
    """The run that ends the answer."""

    token_ids: tuple[int, ...]
    reason: FinishReason


@dataclass(frozen=True)
class Of:
    """A run of a choice that is not the first."""

    choice: int
    run: list[int] | Last


Step = list[int] | Last | Of | BaseException | None
"""A run's tokens; the last run; one of another choice; an error; or None: nothing comes until
cancelled."""

PROMPT = (70, 71, 72, 73, 74, 75, 76)
NUM_CACHED = 3


def logprobs_of(token_id: int, top: int) -> TokenLogprobs:
    """What this model thinks of a token; the likeliest is always token 65."""
    likeliest = tuple((65 + place, -0.5 - place) for place in range(top))
    return TokenLogprobs(logprob=-token_id / 8, top=likeliest)


@dataclass
class ScriptedCall:
    """Plays its steps, one run each."""

    request_id: str
    steps: Sequence[Step]
    sampling: SamplingParams
    path: Path = field(default_factory=lambda: Path.of("r", 0.0, ()))
    num_prompt_tokens: int = len(PROMPT)
    num_cached_tokens: int = NUM_CACHED
    prompt_token_ids: tuple[int, ...] = ()
    prompt_row_spans: tuple[tuple[int, int], ...] = ()
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    num_cancels: int = 0
    together: bool = False
    num_played: int = 0
    ended: list[int] = field(default_factory=list)
    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def runs(self) -> AsyncIterator[TokenRun]:
        if (top := self.sampling.prompt_logprobs) is not None:
            self.prompt_token_ids = PROMPT
            self.prompt_logprobs = tuple(logprobs_of(token_id, top) for token_id in PROMPT[1:])
        indices = [0] * self.sampling.n
        for step in self.steps:
            self.num_played += 1
            if step is None:
                self.waiting.set()
                await asyncio.Event().wait()
            if isinstance(step, BaseException):
                raise step
            choice, run = (step.choice, step.run) if isinstance(step, Of) else (0, step)
            ids, reason = (
                (run.token_ids, run.reason) if isinstance(run, Last) else (tuple(run or ()), None)
            )
            top = self.sampling.logprobs
            yield TokenRun(
                request=RequestKey(self.request_id, 1),
                first_index=indices[choice],
                token_ids=ids,
                finish_reason=reason,
                choice=choice,
                logprobs=() if top is None else tuple(logprobs_of(one, top) for one in ids),
            )
            indices[choice] += len(ids)

    @property
    def more(self) -> bool:
        return self.together and self.num_played < len(self.steps)

    def end_choice(self, choice: int) -> None:
        self.ended.append(choice)

    async def cancel(self) -> None:
        self.num_cancels += 1
        self.cancelled.set()


@dataclass
class ScriptedService:
    """Gives every request the same script. `refusal` is raised instead of taking it. `together`:
    all runs are there at once."""

    script: Sequence[Step] = ()
    refusal: EpdError | None = None
    hangs: bool = False
    together: bool = False
    model_name: str = "tiny"
    created: int = 1_700_000_000
    is_ready: bool = True
    specs: list[CallSpec] = field(default_factory=list)
    calls: list[ScriptedCall] = field(default_factory=list)
    path: Path = field(default_factory=lambda: Path.of("r", 0.0, ()))
    row_spans: tuple[tuple[int, int], ...] = ()
    orders: list[tuple[str, float | None]] = field(default_factory=list)
    taken: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def submit(self, call: CallSpec) -> ScriptedCall:
        self.specs.append(call)
        self.taken.set()
        if self.refusal is not None:
            raise self.refusal
        if self.hangs:
            try:
                await asyncio.Event().wait()
            finally:
                self.left.set()
        name = f"r{len(self.calls)}"
        played = ScriptedCall(name, self.script, call.sampling, self.path, together=self.together)
        played.prompt_row_spans = self.row_spans
        played.prompt_token_ids = PROMPT if call.tells_prompt else ()
        self.calls.append(played)
        return played

    def ready(self) -> bool:
        return self.is_ready

    def metrics(self) -> bytes:
        return b"epd_requests_total 3\n"

    def cluster(self) -> dict[str, Any]:
        return {"workers": [{"name": "P"}]}

    def where(self, request_id: str) -> dict[str, Any]:
        if not any(call.request_id == request_id for call in self.calls):
            raise NotFound("no such request")
        return {"id": request_id}

    def recent(self) -> list[dict[str, Any]]:
        return [{"request_id": call.request_id} for call in self.calls]

    def drain(self, name: str, seconds: float | None) -> None:
        self.orders.append((name, seconds))
