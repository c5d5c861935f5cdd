"""The gateway's record of one request, and how its tokens become one gapless stream."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

from epd.cluster.placement import Placed
from epd.types import (
    FinishReason,
    ItemKey,
    ItemLayout,
    Modality,
    Prompt,
    PromptItem,
    RequestKey,
    SamplingParams,
    TokenRun,
)
from epd.wire.messages import Admit

HEADROOM = 64
"""Tokens of output to hold KV for at admission; decode grows from there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemJob:
    """One item of a submission. `url` None: the gateway keeps its bytes."""

    modality: Modality
    url: str | None
    text_before: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A validated request: text[0], items[0], text[1], ... as token ids without placeholders."""

    request_id: str
    text: tuple[tuple[int, ...], ...]
    items: tuple[ItemJob, ...]
    sampling: SamplingParams


class Phase(Enum):
    """Where a request stands."""

    ENCODING = "encoding"
    WAITING = "waiting"
    RESERVING = "reserving"
    ADMITTING = "admitting"
    RUNNING = "running"


@dataclass(slots=True)
class Item:
    """One item and the encoder that has it. `pending`: its layout is still to come.

    `losses` counts how often this attempt of its request has lost it.
    """

    job: ItemJob
    key: ItemKey
    encoder: str
    layout: ItemLayout | None = None
    pending: bool = True
    losses: int = 0

    @property
    def name(self) -> str:
        """As its client counts it, from 0."""
        return f"{self.job.modality.value.replace('_', ' ')} {self.key.index}"


@dataclass(slots=True)
class Stream:
    """Emits only the next index; buffers what is ahead and drops what is behind."""

    emitted: list[int] = field(default_factory=list)
    _ahead: dict[int, int] = field(default_factory=dict)
    _end: tuple[int, FinishReason] | None = None

    def take(self, run: TokenRun) -> TokenRun | None:
        """What can be emitted now that `run` is here, if anything."""
        first = len(self.emitted)
        for index, token in enumerate(run.token_ids, run.first_index):
            if index >= first:
                self._ahead[index] = token
        if run.finish_reason is not None:
            self._end = (run.first_index + len(run.token_ids), run.finish_reason)
        while (token_id := self._ahead.pop(len(self.emitted), None)) is not None:
            self.emitted.append(token_id)
        ended = self._end is not None and self._end[0] == len(self.emitted)
        reason = self._end[1] if ended and self._end is not None else None
        if len(self.emitted) == first and reason is None:
            return None
        return replace(
            run,
            first_index=first,
            token_ids=tuple(self.emitted[first:]),
            finish_reason=reason,
        )

    def restart(self) -> None:
        """A new attempt begins after what was emitted; what was ahead will come again."""
        self._ahead.clear()
        self._end = None


@dataclass(slots=True)
class Request:
    """One request, first job to last token. `aged`: it was refused and is not overtaken.

    `pools`: where it may be served; with items, the one that has their rows. `mourned`: a worker
    whose death was counted on another's word.
    """

    submission: Submission
    order: int
    items: list[Item] = field(default_factory=list)
    pools: set[str] = field(default_factory=set)
    sampling: SamplingParams = SamplingParams()
    phase: Phase = Phase.ENCODING
    attempt: int = 1
    placed: Placed | None = None
    handed_over: bool = False
    refused_by: set[str] = field(default_factory=set)
    aged: bool = False
    deaths: int = 0
    mourned: str | None = None
    stream: Stream = field(default_factory=Stream)

    @property
    def key(self) -> RequestKey:
        """The current attempt."""
        return RequestKey(self.submission.request_id, self.attempt)

    @property
    def workers(self) -> list[str]:
        """Who has a part in the current attempt."""
        if self.placed is None:
            return []
        names = [None if self.handed_over else self.placed.prefill, self.placed.decode]
        return [name for name in names if name is not None]

    def restart(self) -> None:
        """Wait for the next attempt."""
        self.attempt += 1
        self.phase = Phase.WAITING
        self.handed_over = False
        self.stream.restart()
        for item in self.items:
            item.losses = 0

    @property
    def laid_out(self) -> bool:
        """Every item's layout is known, so the prompt's length is."""
        return all(item.layout is not None for item in self.items)

    def prompt(self) -> Prompt:
        """The resolved prompt of the current attempt, ending with what was emitted already."""
        text = [list(part) for part in self.submission.text]
        placed: list[PromptItem] = []
        for before, item in zip(text, self.items, strict=False):
            assert item.layout is not None
            if item.layout.replaces_left:
                del before[-item.layout.replaces_left :]
            encoder = "" if item.pending else item.encoder
            placed.append(PromptItem(item=item.key, encoder=encoder, layout=item.layout))
        text[-1] += self.stream.emitted
        return Prompt(text=tuple(map(tuple, text)), items=tuple(placed))

    def needed_tokens(self, prompt: Prompt) -> int:
        """What to hold KV for at admission."""
        left = self.sampling.max_tokens - len(self.stream.emitted)
        return prompt.num_tokens + min(max(left, 1), HEADROOM)

    def admission(self, cached_tokens: int) -> Admit:
        """What the prefill, or fused, worker of the current attempt is to do."""
        assert self.placed is not None
        prompt = self.prompt()
        fused = self.placed.decode is None
        return Admit(
            request=self.key,
            prompt=prompt,
            sampling=self.sampling,
            decode=self.placed.decode,
            num_tokens=self.needed_tokens(prompt) if fused else prompt.num_tokens,
            first_index=len(self.stream.emitted),
            cached_tokens=cached_tokens,
        )
