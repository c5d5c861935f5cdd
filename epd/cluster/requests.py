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
    """One item and the encoder that has it. `pending`: its layout is still to come."""

    job: ItemJob
    key: ItemKey
    encoder: str
    layout: ItemLayout | None = None
    pending: bool = True

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
    """One request, first job to last token. `aged`: it was refused and is not overtaken."""

    submission: Submission
    order: int
    items: list[Item] = field(default_factory=list)
    sampling: SamplingParams = SamplingParams()
    phase: Phase = Phase.ENCODING
    attempt: int = 1
    placed: Placed | None = None
    refused_by: set[str] = field(default_factory=set)
    aged: bool = False
    deaths: int = 0
    stream: Stream = field(default_factory=Stream)

    @property
    def key(self) -> RequestKey:
        """The current attempt."""
        return RequestKey(self.submission.request_id, self.attempt)

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
