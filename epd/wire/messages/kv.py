"""Keys and values, pulled by decode workers from prefill workers."""

from __future__ import annotations

from dataclasses import dataclass

from epd.types import RequestKey, SamplingParams
from epd.wire.messages.registry import Payload, message


@message("kv.ready")
@dataclass(frozen=True, slots=True, kw_only=True)
class KvReady:
    """Prefill -> decode: KV of the first `num_tokens` prompt tokens exists and may be pulled."""

    request: RequestKey
    num_tokens: int


@message("kv.pull")
@dataclass(frozen=True, slots=True, kw_only=True)
class PullKv:
    """Decode -> prefill: send KV of tokens [first_token, first_token + num_tokens), all layers."""

    request: RequestKey
    first_token: int
    num_tokens: int


@message("kv.chunk")
@dataclass(frozen=True, slots=True, kw_only=True)
class KvChunk:
    """Prefill -> decode, bulk: KV of a token range x layer range.

    The payload is [2 (K, V), num_layers, num_tokens, kv_heads, head_dim] in the KV dtype; page
    layout and block size stay each worker's own business.
    """

    request: RequestKey
    first_token: int
    num_tokens: int
    first_layer: int
    num_layers: int
    payload: Payload


@message("kv.part.pull")
@dataclass(frozen=True, slots=True, kw_only=True)
class PullPart:
    """A rank of decode -> prefill's of the same number: send what you keep under this number.

    Answered by KvPart, once, or by PartGone.
    """

    number: int


@message("kv.part")
@dataclass(frozen=True, slots=True, kw_only=True)
class KvPart:
    """A rank of prefill -> decode's of the same number, bulk: its own heads of a KvChunk."""

    number: int
    payload: Payload


@message("kv.part.gone")
@dataclass(frozen=True, slots=True, kw_only=True)
class PartGone:
    """A rank of prefill -> decode's of the same number: nothing is kept under this number."""

    number: int


@message("kv.taken")
@dataclass(frozen=True, slots=True, kw_only=True)
class KvTaken:
    """Decode -> prefill: the chunk was copied by all ranks; `slot`, its number, may be reused."""

    slot: int
    request: RequestKey


@message("kv.handoff")
@dataclass(frozen=True, slots=True, kw_only=True)
class HandOff:
    """Prefill -> decode, after the last chunk was computed: the request's state.

    `token_ids` is the whole prompt, all of which has KV at prefill. `choices` has (choice, first
    sampled token) of every choice that goes on; that token's index is `first_index`.
    `position_delta`: rotary position of token i is i + position_delta.
    """

    request: RequestKey
    token_ids: tuple[int, ...]
    choices: tuple[tuple[int, int], ...]
    position_delta: float
    sampling: SamplingParams
    first_index: int


@message("kv.landed")
@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOver:
    """Decode -> prefill: all KV and the state are here; prefill's blocks are free."""

    request: RequestKey
