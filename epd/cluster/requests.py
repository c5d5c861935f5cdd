"""The gateway's record of one request as its client sees it and as workers see its parts.

An `Answer` is what a client gets: a stream per choice. A `Request` is what workers run: all of its
choices to begin with, one of them once an attempt was lost with tokens emitted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from epd.cluster.instructions import Emit, Opening
from epd.cluster.placement import Placed
from epd.cluster.streams import Stream
from epd.cluster.submission import ItemJob, Submission
from epd.prefix import prefix_of
from epd.types import (
    ItemKey,
    ItemLayout,
    Prefix,
    Prompt,
    PromptItem,
    RequestKey,
    SamplingParams,
    TokenLogprobs,
    TokenRun,
)
from epd.wire.messages import Admit

HEADROOM = 64
"""Tokens of output per choice to hold KV for at admission; decode grows from there."""

PART = "/"
"""Between a client's request and the choice that became a request of its own."""


def asked_as(request_id: str) -> str:
    """The request that the client asked, of which this one is a part."""
    return request_id.partition(PART)[0]


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

    `held`: its tower waits for us. `dropped`: its encoder was told to let go of it. `losses` counts
    how often this attempt of its request has lost it. `refused` has the workers that had no room
    for it, and after how many milliseconds they expect to have some. `done`: its rows were made.
    `suspect`: an encoder died while it had the item to do; `encoder` "": it waits for one where no
    other suspect is.
    """

    job: ItemJob
    key: ItemKey
    encoder: str
    layout: ItemLayout | None = None
    pending: bool = True
    held: bool = False
    dropped: bool = False
    losses: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    done: bool = False
    suspect: bool = False

    @property
    def at_work(self) -> bool:
        """Its encoder may be busy with it."""
        return not self.done and not self.dropped and (self.pending or not self.held)

    @property
    def name(self) -> str:
        """As its client counts it, from 0."""
        return f"{self.job.modality.value.replace('_', ' ')} {self.key.index}"


@dataclass(slots=True)
class Answer:
    """What one client gets, and the requests that make it.

    `root` is the parent of its prompt's first block, None where no KV is to be reused. Runs that
    come before the prompt's logprobs wait as `early`, with their senders.
    """

    submission: Submission
    root: bytes | None
    streams: dict[int, Stream]
    parts: dict[str, Request] = field(default_factory=dict)
    num_prompt_tokens: int = 0
    num_cached_tokens: int | None = None
    early: list[tuple[str, TokenRun]] = field(default_factory=list)
    _scores: dict[int, TokenLogprobs] = field(default_factory=dict)
    _begun: bool = False

    @classmethod
    def of(cls, submission: Submission, root: bytes | None) -> Answer:
        """Nothing has come yet."""
        sampling = submission.sampling
        choices = range(sampling.first_choice, sampling.first_choice + sampling.n)
        return cls(submission, root, {choice: Stream() for choice in choices})

    @property
    def request_id(self) -> str:
        """As the client's side knows it."""
        return self.submission.request_id

    @property
    def scored(self) -> bool:
        """Nothing is missing of the prompt's logprobs; true where nobody asked."""
        if self.submission.sampling.prompt_logprobs is None:
            return True
        return 0 < self.num_prompt_tokens <= len(self._scores) + 1

    def score(self, first_token: int, logprobs: Sequence[TokenLogprobs]) -> None:
        """Logprobs of some prompt tokens, maybe once more."""
        for token, found in enumerate(logprobs, first_token):
            if 1 <= token < self.num_prompt_tokens:
                self._scores.setdefault(token, found)

    def emit(self, run: TokenRun) -> Emit:
        """The next tokens of a choice, the first ones with what is known of the prompt."""
        opening = None
        if not self._begun:
            self._begun = True
            scores = tuple(self._scores[token] for token in sorted(self._scores))
            opening = Opening(self.num_cached_tokens or 0, scores)
        ended = run.finish_reason is not None
        last = ended and all(stream.ended for stream in self.streams.values())
        return Emit(self.request_id, run, opening, last)


@dataclass(slots=True)
class Request:
    """One request, first job to last token. `aged`: it was refused and is not overtaken. `queued`:
    it was told to wait, and will not be refused for that.

    `pools`: where it may be served; the one that has rows or made tokens of it. `mourned`: a worker
    whose death was counted on another's word; `ran_there`: this request may have been the cause,
    `mourned_again`: and was a suspect before. `apart` has pairs of workers of which one lost the
    other with this request: the link between them may be cut. `resumed` counts the emitted tokens
    that end the current attempt's prompt.
    """

    request_id: str
    answer: Answer
    order: int
    choices: tuple[int, ...]
    sampling: SamplingParams
    items: list[Item] = field(default_factory=list)
    pools: set[str] = field(default_factory=set)
    phase: Phase = Phase.ENCODING
    attempt: int = 1
    resumed: int = 0
    placed: Placed | None = None
    handed_over: bool = False
    refused_by: set[str] = field(default_factory=set)
    aged: bool = False
    queued: bool = False
    deaths: int = 0
    mourned: str | None = None
    apart: set[frozenset[str]] = field(default_factory=set)
    ran_there: bool = False
    mourned_again: bool = False
    _hashed: tuple[int, Prefix] | None = None

    # ---- its attempts

    @property
    def key(self) -> RequestKey:
        """The current attempt."""
        return RequestKey(self.request_id, self.attempt)

    @property
    def workers(self) -> list[str]:
        """Who has a part in the current attempt."""
        if self.placed is None:
            return []
        names = [None if self.handed_over else self.placed.prefill, self.placed.decode]
        return [name for name in names if name is not None]

    @property
    def whole(self) -> bool:
        """No choice has tokens or an end, so all of them may begin together once more."""
        streams = map(self._stream, self.choices)
        return not any(stream.emitted or stream.ended for stream in streams)

    @property
    def bound(self) -> bool:
        """Its pool has a part in it already, in rows or tokens that another's would not match."""
        return bool(self.items) or not self.whole

    @property
    def begun(self) -> bool:
        """The current attempt's prompt has been computed: each choice has a token of it."""
        tokens = (len(self._stream(choice).emitted) for choice in self.live)
        return self.phase is Phase.RUNNING and all(num > self.resumed for num in tokens)

    @property
    def num_emitted(self) -> list[int]:
        """Tokens of each choice that the client has."""
        return [len(self._stream(choice).emitted) for choice in self.choices]

    def restart(self) -> None:
        """Wait for the next attempt, with the choice that is left, or with all of them."""
        if not self.whole:
            (choice,) = self.choices = self.live
            self.resumed = len(self._stream(choice).emitted)
        self.attempt += 1
        self.phase = Phase.WAITING
        self.handed_over = False
        for choice in self.choices:
            self._stream(choice).restart()
        for item in self.items:
            item.losses = 0

    def begin_again(self, pools: set[str]) -> None:
        """Wait for the layouts of its items once more, in other pools."""
        self.restart()
        self.phase = Phase.ENCODING
        self.items, self.pools = [], pools
        self._hashed = None

    def part(self, choice: int) -> Request:
        """One choice as a request of its own that goes on where this one was given up."""
        stream = self._stream(choice)
        stream.restart()
        return Request(
            request_id=f"{self.request_id}{PART}{choice}",
            answer=self.answer,
            order=self.order,
            choices=(choice,),
            sampling=self.sampling,
            pools=set(self.pools),
            phase=Phase.WAITING,
            resumed=len(stream.emitted),
            refused_by=set(self.refused_by),
            aged=self.aged,
            queued=True,
            deaths=self.deaths,
            mourned=self.mourned,
            apart=set(self.apart),
            ran_there=self.ran_there,
            mourned_again=self.mourned_again,
        )

    # ---- its choices

    def _stream(self, choice: int) -> Stream:
        return self.answer.streams[choice]

    def stream(self, choice: int) -> Stream | None:
        """Of a choice that this request still makes."""
        stream = self._stream(choice) if choice in self.choices else None
        return None if stream is None or stream.ended else stream

    @property
    def live(self) -> tuple[int, ...]:
        """Choices that have not ended."""
        return tuple(choice for choice in self.choices if not self._stream(choice).ended)

    @property
    def decoded(self) -> bool:
        """No choice waits for its first token, which only prefill has."""
        return all(self._stream(choice).emitted for choice in self.live)

    @property
    def num_new(self) -> int:
        """Tokens that the current attempt has added, of the choice that is furthest."""
        return max(len(self._stream(choice).emitted) for choice in self.choices) - self.resumed

    def generated(self) -> list[list[int]]:
        """Of each choice the tokens behind the current attempt's prompt that have KV."""
        return [self._stream(choice).emitted[self.resumed : -1] for choice in self.choices]

    # ---- its prompt

    @property
    def laid_out(self) -> bool:
        """Every item's layout is known, so the prompt's length is."""
        return all(item.layout is not None for item in self.items)

    def num_text_before(self, item: Item) -> int:
        """Tokens between an item and the one before it, or the prompt's beginning."""
        return len(self.answer.submission.text[item.key.index])

    def prompt(self) -> Prompt:
        """The resolved prompt of the current attempt, ending with what was emitted already."""
        text = [list(part) for part in self.answer.submission.text]
        placed: list[PromptItem] = []
        for before, item in zip(text, self.items, strict=False):
            assert item.layout is not None
            if item.layout.replaces_left:
                del before[-item.layout.replaces_left :]
            encoder = "" if item.pending else item.encoder
            placed.append(PromptItem(item=item.key, encoder=encoder, layout=item.layout))
        text[-1] += self._stream(self.choices[0]).emitted[: self.resumed]
        return Prompt(text=tuple(map(tuple, text)), items=tuple(placed))

    def row_ends(self) -> Iterator[tuple[Item, int]]:
        """Each item with the number of prompt tokens up to its last row."""
        if not self.items:  # a long prompt is not put together for nothing
            return
        for item, offset in zip(self.items, self.prompt().offsets, strict=True):
            assert item.layout is not None
            yield item, offset + max((end for _, end in item.layout.row_spans), default=0)

    @property
    def reuses_kv(self) -> bool:
        """KV of its prompt may be cached, and then need not be computed to answer."""
        return self.answer.root is not None and self.answer.scored

    @property
    def prefix(self) -> Prefix | None:
        """Hashes of the current attempt's prompt, computed once."""
        if self.answer.root is None:
            return None
        if self._hashed is None or self._hashed[0] != self.resumed:
            self._hashed = self.resumed, prefix_of(self.prompt(), self.answer.root)
        return self._hashed[1]

    @property
    def blocks(self) -> tuple[bytes, ...]:
        """Of the prefix, if there is one."""
        prefix = self.prefix
        return () if prefix is None else prefix.blocks

    def needed_tokens(self, prompt: Prompt) -> int:
        """What to hold KV for at admission."""
        left = self.sampling.max_tokens - self.resumed
        return prompt.num_tokens + len(self.choices) * min(max(left, 1), HEADROOM)

    def admission(self, cached_tokens: int) -> Admit:
        """What the prefill, or fused, worker of the current attempt is to do."""
        assert self.placed is not None
        prompt = self.prompt()
        fused = self.placed.decode is None
        return Admit(
            request=self.key,
            prompt=prompt,
            sampling=self._asked(),
            decode=self.placed.decode,
            num_tokens=self.needed_tokens(prompt) if fused else prompt.num_tokens,
            first_index=self.resumed,
            cached_tokens=cached_tokens,
            prefix=self.prefix,
        )

    def _asked(self) -> SamplingParams:
        """The current attempt's share of what the client wants."""
        scores = None if self.answer.scored else self.sampling.prompt_logprobs
        return replace(
            self.sampling,
            n=len(self.choices),
            first_choice=self.choices[0],
            prompt_logprobs=scores,
        )
