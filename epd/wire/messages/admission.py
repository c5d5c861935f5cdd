"""Room for a request: gateway and language workers."""

from __future__ import annotations

from dataclasses import dataclass

from epd.types import Prefix, Prompt, RequestKey, SamplingParams
from epd.wire.messages.registry import message


@message("decode.reserve")
@dataclass(frozen=True, slots=True, kw_only=True)
class Reserve:
    """Gateway -> decode: hold KV for `num_tokens` tokens; `prefill` will have the prompt's KV.

    Answered at once by Reserved or Refused; nobody waits for blocks while holding others.
    `prefix` None: neither use nor keep cached KV for this request. Nobody waits for it after
    `deadline_ms` from now; 0: for ever.
    """

    request: RequestKey
    num_tokens: int
    prefill: str
    prefix: Prefix | None = None
    deadline_ms: int = 0


@message("decode.reserved")
@dataclass(frozen=True, slots=True, kw_only=True)
class Reserved:
    """Decode -> gateway: held under a lease. The first `cached_tokens` need not travel."""

    request: RequestKey
    cached_tokens: int


@message("prefill.admit")
@dataclass(frozen=True, slots=True, kw_only=True)
class Admit:
    """Gateway -> prefill or fused worker: run this prompt. Answered by Admitted or Refused.

    `decode` names the worker that holds the reservation, None means that this worker decodes
    itself. `num_tokens` is what to hold KV for here. `first_index` is the index of the first token
    to sample: 0, or the number of tokens emitted by earlier attempts, which end the prompt.
    `cached_tokens` are at the decode worker already. `prefix` None: neither use nor keep cached KV.
    Nobody waits for it after `deadline_ms` from now; 0: for ever.
    """

    request: RequestKey
    prompt: Prompt
    sampling: SamplingParams
    decode: str | None
    num_tokens: int
    first_index: int = 0
    cached_tokens: int = 0
    prefix: Prefix | None = None
    deadline_ms: int = 0


@message("prefill.admitted")
@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """Prefill -> gateway: everything it needs here is held. KV of the first `cached_tokens` tokens
    was there already, so it will pull no row that only they take."""

    request: RequestKey
    cached_tokens: int = 0


@message("cluster.refused")
@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Decode or prefill -> gateway: nothing is held. `never`: it cannot fit even when idle.

    Otherwise the worker owes the gateway one Room when something has been given back, which it
    expects after `retry_after_ms`.
    """

    request: RequestKey
    reason: str
    never: bool
    retry_after_ms: int = 0


@message("cluster.room")
@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Worker -> gateway: something was given back since I refused you; try again."""

    free_tokens: int
