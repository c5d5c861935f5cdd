"""Several prompts of one request, as one call: their choices are counted on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from epd.gateway.service import Call, CallSpec, Service
from epd.observe import Path
from epd.types import TokenLogprobs, TokenRun


async def submit(service: Service, specs: Sequence[CallSpec]) -> Call:
    """All of them or none."""
    calls: list[Call] = []
    try:
        for spec in specs:
            calls.append(await service.submit(spec))
    except BaseException:
        for call in calls:
            await asyncio.shield(call.cancel())
        raise
    return calls[0] if len(calls) == 1 else Batch(calls, specs[0].sampling.n)


class Batch:
    """A Call of several, each with `n` choices. One that fails fails all."""

    def __init__(self, calls: Sequence[Call], n: int) -> None:
        self._calls = calls
        self._n = n

    @property
    def request_id(self) -> str:
        """The first one's."""
        return self._calls[0].request_id

    @property
    def path(self) -> Path:
        """The first one's."""
        return self._calls[0].path

    @property
    def num_prompt_tokens(self) -> int:
        """Of all prompts together."""
        return sum(call.num_prompt_tokens for call in self._calls)

    @property
    def num_cached_tokens(self) -> int:
        """Of all prompts together."""
        return sum(call.num_cached_tokens for call in self._calls)

    @property
    def prompt_token_ids(self) -> tuple[int, ...]:
        """Of one prompt alone there is something to say."""
        return ()

    @property
    def prompt_row_spans(self) -> tuple[tuple[int, int], ...]:
        """Of one prompt alone there is something to say."""
        return ()

    @property
    def prompt_logprobs(self) -> tuple[TokenLogprobs, ...]:
        """Of one prompt alone there is something to say."""
        return ()

    @property
    def more(self) -> bool:
        """Whether any prompt has more."""
        return any(call.more for call in self._calls)

    async def runs(self) -> AsyncIterator[TokenRun]:
        """As they come; each in the order of its own prompt."""
        found: asyncio.Queue[TokenRun | BaseException | None] = asyncio.Queue()
        tasks = [asyncio.create_task(self._follow(i, found)) for i in range(len(self._calls))]
        try:
            for _ in tasks:
                while (run := await found.get()) is not None:
                    if isinstance(run, BaseException):
                        raise run
                    yield run
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(
        self, index: int, found: asyncio.Queue[TokenRun | BaseException | None]
    ) -> None:
        """One prompt's runs under the numbers that its choices have here; None at their end."""
        try:
            async for run in self._calls[index].runs():
                found.put_nowait(replace(run, choice=run.choice + index * self._n))
        except Exception as error:  # noqa: BLE001  raised again where the runs are read
            found.put_nowait(error)
        else:
            found.put_nowait(None)

    def end_choice(self, choice: int) -> None:
        """No more of this choice is wanted."""
        self._calls[choice // self._n].end_choice(choice % self._n)

    async def cancel(self) -> None:
        """Give everything back of all prompts."""
        for call in self._calls:
            await call.cancel()
