"""A step on its way: what goes into it, what was asked for, and what it gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from epd.attention.staging import Fetched
from epd.engine.chunk import Chunk
from epd.engine.request import Choice
from epd.engine.sampler import Sampled
from epd.types import TokenLogprobs


@dataclass(frozen=True, slots=True)
class ChunkRows:
    """Embedding rows of a chunk: their places relative to its first token, and [k, hidden]."""

    places: torch.Tensor
    rows: torch.Tensor


@dataclass(slots=True)
class Outcome:
    """Of every choice that samples, in the order of the chunks: its id (see sampler.BROKEN), and
    its log-probabilities where any are asked for; of prompts, those from the token that is named.
    """

    ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs | None] = field(default_factory=list)
    prompt_logprobs: list[tuple[Chunk, int, tuple[TokenLogprobs, ...]]] = field(
        default_factory=list
    )


@dataclass(frozen=True, slots=True)
class PromptMeasured:
    """What logprobs.measure_prompt() found from prompt token `first` on, on its way to the host."""

    chunk: Chunk
    first: int
    values: Fetched


@dataclass(slots=True)
class Launched:
    """A step that the device was asked for. `choices` are all that sample, in order.

    `ids` and `measured` are what `sampled` has, on their way to the host. `told`: the sampler wants
    to hear of the ids.
    """

    chunks: list[Chunk]
    choices: list[Choice]
    sampled: Sampled | None = None
    ids: Fetched | None = None
    measured: Fetched | None = None
    told: bool = False
    prompts: list[PromptMeasured] = field(default_factory=list)

    @property
    def says(self) -> bool:
        """Whether there is anything to read."""
        return bool(self.choices or self.prompts)


def token_ids(chunk: Chunk) -> list[int]:
    """What is computed; 0 for an id that the device alone knows."""
    ahead = chunk.choice is not None and chunk.choice.ahead
    return [0] if ahead else chunk.token_ids


def rotary_positions(chunks: Sequence[Chunk]) -> torch.Tensor:
    """Rotary positions of the packed tokens: [3, T] where any request has three rows, else [T].

    Decodes come first in a step: their positions are one tensor.
    """
    single = [c.first + c.state.request.position_delta for c in chunks if c.choice is not None]
    parts = [torch.tensor(single, dtype=torch.float64)] if single else []
    for chunk in chunks[len(single) :]:
        parts.append(chunk.state.request.positions[..., chunk.first : chunk.first + chunk.num])
    if any(part.ndim == 2 for part in parts):
        parts = [part.expand(3, -1) for part in parts]
    return torch.cat(parts, -1).to(torch.float64)
