"""What the HTTP front needs from the cluster behind it: submit a prompt, get tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

from epd.observe import Path
from epd.prompt import Draft
from epd.types import SamplingParams, TokenLogprobs, TokenRun


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSpec:
    """A validated request. `sampling.max_tokens` may be more than the context has room for: the
    service lowers it once the prompt's length is known. `deadline_s` counts from submission. KV is
    shared with prompts of the same `cache_salt` only. Of those that wait for room, requests of a
    lower `priority` go first. `tells_prompt`: the ids of the whole prompt are wanted.
    `traceparent` is the client's header."""

    draft: Draft
    sampling: SamplingParams
    deadline_s: float
    cache_salt: str = ""
    priority: int = 0
    tells_prompt: bool = False
    traceparent: str = ""


class Call(Protocol):
    """One request that the cluster has taken. What it knows of the prompt, it knows from the first
    run on."""

    @property
    def request_id(self) -> str:
        """Ours, never a client's."""
        ...

    @property
    def path(self) -> Path:
        """What has been done for it so far; complete when it has ended."""
        ...

    @property
    def num_prompt_tokens(self) -> int:
        """Length of the resolved prompt."""
        ...

    @property
    def num_cached_tokens(self) -> int:
        """How many of them were not computed, because their KV was there."""
        ...

    @property
    def prompt_token_ids(self) -> tuple[int, ...]:
        """The resolved prompt where it or its logprobs were asked for, else empty."""
        ...

    @property
    def prompt_row_spans(self) -> tuple[tuple[int, int], ...]:
        """Half-open ranges of them that take rows of items instead of being tokens."""
        ...

    @property
    def prompt_logprobs(self) -> tuple[TokenLogprobs, ...]:
        """Of the prompt's tokens from the second on, if they were asked for."""
        ...

    def runs(self) -> AsyncIterator[TokenRun]:
        """Each choice's tokens by ascending index without gaps, its last run with a finish reason.

        Ends when every choice has ended. EpdError.
        """
        ...

    @property
    def more(self) -> bool:
        """The next of what runs() gives is here already, as far as that can be told."""
        ...

    def end_choice(self, choice: int) -> None:
        """No more of this choice is wanted; the end of the last one ends the request."""
        ...

    async def cancel(self) -> None:
        """Give everything back on every stage. Idempotent, also after the end or an error."""
        ...


class Service(Protocol):
    """The cluster. All methods are called on the event loop and return quickly."""

    @property
    def model_name(self) -> str:
        """What clients call the model."""
        ...

    @property
    def created(self) -> int:
        """Start of service, Unix seconds."""
        ...

    async def submit(self, call: CallSpec) -> Call:
        """EpdError if it cannot be taken. Cancelled while it waits, it leaves nothing behind."""
        ...

    def ready(self) -> bool:
        """Whether work can be taken."""
        ...

    def metrics(self) -> bytes:
        """In Prometheus' text format."""
        ...

    def cluster(self) -> dict[str, Any]:
        """Every worker and what it holds, for people."""
        ...

    def where(self, request_id: str) -> dict[str, Any]:
        """What one request waits for. NotFound unless it runs."""
        ...

    def recent(self) -> list[dict[str, Any]]:
        """The paths of the last requests that have ended, the oldest first."""
        ...

    def drain(self, name: str, seconds: float | None) -> None:
        """Tell a worker to finish within this time, and to leave. NotFound unless it is there."""
        ...
