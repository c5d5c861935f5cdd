"""A request inside the engine: what is asked, and how far it has come. Pure at run time."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from epd.errors import EpdError, InternalError
from epd.types import FinishReason, RequestKey, SamplingParams, TokenRun

if TYPE_CHECKING:
    import torch

    from epd.engine.embeddings import MultiModalEmbeddingData


class Role(Enum):
    """What this engine does of a request."""

    FULL = "full"
    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(kw_only=True, eq=False)
class EngineRequest:
    """One attempt of a request for this engine.

    FULL computes `token_ids` (the prompt) and generates to the end. PREFILL samples one token and
    keeps the KV until release. For both `first_index` is the index of the first token to sample.
    DECODE starts where the KV of token_ids[:-1] was written under the reservation; the last of
    `token_ids` is the sampled token number `first_index`.

    `positions` are the prompt's rotary positions, [3, T] or [T] int64 on the CPU (not read for
    DECODE); those of a generated token at place p are p + position_delta.
    """

    key: RequestKey
    token_ids: list[int]
    positions: torch.Tensor
    position_delta: int
    sampling: SamplingParams
    first_index: int = 0
    embeddings: MultiModalEmbeddingData | None = None
    role: Role = Role.FULL


@dataclass(slots=True)
class StepResult:
    """What one step did. `computed` counts prompt tokens that have KV now, all chunks together.

    A failed request, and a FULL or DECODE request whose run has a finish_reason, is released.
    """

    tokens: list[TokenRun] = field(default_factory=list)
    computed: list[tuple[RequestKey, int]] = field(default_factory=list)
    failed: list[tuple[RequestKey, EpdError]] = field(default_factory=list)


class RequestState:
    """How far a request has come. `token_ids` grows; KV exists of its first `num_computed`."""

    def __init__(self, request: EngineRequest) -> None:
        self.request = request
        self.key = request.key
        self.token_ids = list(request.token_ids)
        decode = request.role is Role.DECODE
        self.num_prompt = len(self.token_ids) - decode
        self.num_computed = self.num_prompt if decode else 0
        self.next_index = request.first_index + decode
        if self.num_prompt < 1:
            raise InternalError("a request needs at least one prompt token")
        if not 0 <= request.first_index <= self.next_index < request.sampling.max_tokens:
            raise InternalError(
                f"token {self.next_index} is not below max_tokens {request.sampling.max_tokens}"
            )

    @property
    def in_prompt(self) -> bool:
        """Are there prompt tokens left to compute?"""
        return self.num_computed < self.num_prompt

    @property
    def parked(self) -> bool:
        """Done here, KV kept for whoever pulls it."""
        return self.request.role is Role.PREFILL and not self.in_prompt

    @property
    def num_ready(self) -> int:
        """Tokens that could be computed now."""
        if not self.in_prompt:
            return 0 if self.parked else 1
        rows = self.request.embeddings
        limit = self.num_prompt if rows is None else min(self.num_prompt, rows.ready_tokens)
        return max(0, limit - self.num_computed)

    def accept(self, token: int) -> FinishReason | None:
        """Append a sampled token; why the request ends with it, if it does."""
        index, self.next_index = self.next_index, self.next_index + 1
        self.token_ids.append(token)
        if token in self.request.sampling.stop_token_ids:
            return FinishReason.STOP
        if index == self.request.sampling.max_tokens - 1:
            return FinishReason.LENGTH
        return None
