"""What the HTTP front needs from the cluster behind it: submit a prompt, get tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from epd.prompt import Draft
from epd.types import SamplingParams, TokenRun


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSpec:
    """A validated request. `sampling.max_tokens` may be more than the context has room for: the
    service lowers it once the prompt's length is known. `deadline_s` counts from submission. KV is
    shared with prompts of the same `cache_salt` only."""

    draft: Draft
    sampling: SamplingParams
    deadline_s: float
    cache_salt: str = ""


class Call(Protocol):
    """One request that the cluster has taken."""

    @property
    def request_id(self) -> str:
        """Ours, never a client's."""
        ...

    @property
    def num_prompt_tokens(self) -> int:
        """Length of the resolved prompt; known when the first run has arrived."""
        ...

    def runs(self) -> AsyncIterator[TokenRun]:
        """Tokens by ascending index without gaps, the last run with a finish reason. EpdError."""
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
