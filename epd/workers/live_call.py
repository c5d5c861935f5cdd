"""One request as its HTTP handler sees it."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol

from epd.errors import Cancelled, EpdError
from epd.observe import Path
from epd.types import TokenLogprobs, TokenRun


class Holder(Protocol):
    """Who runs the call."""

    def end_choice(self, request_id: str, choice: int) -> None:
        """Nobody wants more of one choice. Harmless when it has ended."""
        ...

    def cancel(self, request_id: str, error: EpdError) -> None:
        """End a request from this side. Harmless when it has ended."""
        ...


@dataclass(eq=False)
class LiveCall:
    """`live` has the choices that have not ended for it.

    In `events`, None only says that `live` has changed. `arrived` is what its one reader waits for.
    """

    holder: Holder
    request_id: str
    media: tuple[bytes | None, ...]
    live: set[int]
    path: Path
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_token_ids: tuple[int, ...] = ()
    prompt_row_spans: tuple[tuple[int, int], ...] = ()
    events: deque[TokenRun | EpdError | None] = field(default_factory=deque)
    arrived: asyncio.Future[None] | None = None
    ends: float = math.inf
    timer: asyncio.TimerHandle | None = None

    @property
    def media_bytes(self) -> int:
        """Inline bytes kept for it."""
        return sum(len(data) for data in self.media if data is not None)

    async def runs(self) -> AsyncIterator[TokenRun]:
        """Tokens as they come, to the last choice's last; raises the error that ends them."""
        while self.live:
            while not self.events:
                self.arrived = asyncio.get_running_loop().create_future()
                await self.arrived
            event = self.events.popleft()
            if isinstance(event, EpdError):
                raise event
            if event is None or event.choice not in self.live:
                continue
            if event.finish_reason is not None:
                self.live.discard(event.choice)
            yield event

    @property
    def more(self) -> bool:
        """The next of what runs() gives is here already."""
        return bool(self.events)

    def put(self, event: TokenRun | EpdError | None) -> None:
        """For whoever reads runs()."""
        self.events.append(event)
        if self.arrived is not None and not self.arrived.done():
            self.arrived.set_result(None)

    def end_choice(self, choice: int) -> None:
        """No more tokens of this choice are wanted; the last one ends the request."""
        self.live.discard(choice)
        self.put(None)
        self.holder.end_choice(self.request_id, choice)

    async def cancel(self) -> None:
        """Nobody reads any more; every stage lets go. Harmless after the end."""
        self.holder.cancel(self.request_id, Cancelled("the client left"))
