"""A Service that answers with scripted runs and remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from epd.errors import EpdError
from epd.gateway import CallSpec
from epd.types import FinishReason, RequestKey, TokenRun


@dataclass(frozen=True)
class Last:
    """The run that ends the answer."""

    token_ids: tuple[int, ...]
    reason: FinishReason


Step = list[int] | Last | BaseException | None
"""A run's tokens; the last run; an error; or None: nothing comes until cancelled."""


@dataclass
class ScriptedCall:
    """Plays its steps, one run each."""

    request_id: str
    steps: Sequence[Step]
    num_prompt_tokens: int = 7
    num_cancels: int = 0
    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def runs(self) -> AsyncIterator[TokenRun]:
        index = 0
        for step in self.steps:
            if step is None:
                self.waiting.set()
                await asyncio.Event().wait()
            if isinstance(step, BaseException):
                raise step
            if isinstance(step, Last):
                ids, reason = step.token_ids, step.reason
            else:
                ids, reason = tuple(step or ()), None
            yield TokenRun(
                request=RequestKey(self.request_id, 1),
                first_index=index,
                token_ids=ids,
                finish_reason=reason,
            )
            index += len(ids)

    async def cancel(self) -> None:
        self.num_cancels += 1
        self.cancelled.set()


@dataclass
class ScriptedService:
    """Gives every request the same script. `refusal` is raised instead of taking it."""

    script: Sequence[Step] = ()
    refusal: EpdError | None = None
    hangs: bool = False
    model_name: str = "tiny"
    created: int = 1_700_000_000
    is_ready: bool = True
    specs: list[CallSpec] = field(default_factory=list)
    calls: list[ScriptedCall] = field(default_factory=list)
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
        self.calls.append(ScriptedCall(f"r{len(self.calls)}", self.script))
        return self.calls[-1]

    def ready(self) -> bool:
        return self.is_ready

    def metrics(self) -> bytes:
        return b"epd_requests_total 3\n"
