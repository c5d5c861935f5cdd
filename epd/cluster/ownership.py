"""The gateway owns its requests: jobs, layouts, admission, attempts, and the order of tokens.

Every public method is an event. The caller carries out the returned instructions in order.
Admission is all or nothing and first come, first served: a refused request gives back what it held
and goes back to its place; nobody overtakes it until some worker has room again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from epd.cluster.membership import Membership
from epd.cluster.placement import Placement
from epd.cluster.requests import Item, ItemJob, Phase, Request, Submission
from epd.errors import BadRequest, EpdError, InternalError, Overloaded, Unavailable, from_status
from epd.types import ItemKey, ItemLayout, Prompt, Stage, TokenRun
from epd.wire.messages import (
    Admit,
    Admitted,
    Cancel,
    DropItem,
    EncodeItem,
    ItemFailed,
    ItemMoved,
    LayoutReady,
    Refused,
    RequestFailed,
    Reserve,
    Reserved,
    RowsLost,
)

__all__ = [
    "Accepted",
    "Emit",
    "Failed",
    "ItemJob",
    "Ownership",
    "Submission",
    "Tell",
]

MAX_DEATHS = 3
"""Attempts that one request, or one item, may lose to dying workers."""

HEADROOM = 64
"""Tokens of output to hold KV for at admission; decode grows from there."""


@dataclass(frozen=True, slots=True)
class Tell:
    """Send a message; an EncodeItem without url goes with the item's bytes."""

    to: str
    message: Any


@dataclass(frozen=True, slots=True)
class Accepted:
    """The prompt's length is known and within the limits."""

    request_id: str
    num_prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Emit:
    """The next tokens of the stream; with a finish reason, the last."""

    request_id: str
    run: TokenRun


@dataclass(frozen=True, slots=True)
class Failed:
    """The request ended without an answer."""

    request_id: str
    error: EpdError


Instruction = Tell | Accepted | Emit | Failed


class Ownership:
    """All requests of one gateway. `max_context` bounds prompt + output."""

    def __init__(self, membership: Membership, placement: Placement, max_context: int) -> None:
        self._membership = membership
        self._placement = placement
        self._max_context = max_context
        self._requests: dict[str, Request] = {}
        self._arrivals = 0
        self._blocked = False

    # ---- the client's events

    def submit(self, submission: Submission) -> list[Instruction]:
        """A client asks."""
        self._arrivals += 1
        request = Request(submission, self._arrivals, sampling=submission.sampling)
        self._requests[submission.request_id] = request
        try:
            jobs = [self._dispatch(request, job) for job in submission.items]
        except Unavailable as error:
            return self._fail(request, error)
        return [*jobs, *self._laid_out(request)]

    def cancel(self, request_id: str) -> list[Instruction]:
        """The client left, or has all it wanted."""
        request = self._requests.get(request_id)
        return [] if request is None else [*self._end(request), *self._admit()]

    # ---- encode

    def layout(self, sender: str, message: LayoutReady) -> list[Instruction]:
        """An item's place in the prompt is known."""
        found = self._pending(sender, message.item)
        if found is None:
            return [Tell(sender, DropItem(item=message.item))]
        request, item = found
        self._placement.ended(item.encoder)
        item.pending = False
        if item.layout is None:
            item.layout = message.layout
            return self._laid_out(request)
        return self._moved(request, item, message.layout)

    def item_failed(self, sender: str, message: ItemFailed) -> list[Instruction]:
        """An item cannot be encoded."""
        found = self._find_item(message.item)
        if found is None or found[1].encoder != sender:
            return []
        error = from_status(message.status, message.reason, code=message.code)
        return [*self._fail(found[0], error), *self._admit()]

    def rows_lost(self, sender: str, message: RowsLost) -> list[Instruction]:
        """Prefill waits for rows that their encoder has not got (any more): encode again."""
        found = self._find_item(message.item)
        if found is None or found[1].pending:
            return []
        request, item = found
        if request.placed is None or request.placed.prefill != sender:
            return []
        return self._encode_again(request, item, message.reason)

    def _dispatch(self, request: Request, job: ItemJob) -> Tell:
        key = ItemKey(request.submission.request_id, len(request.items), 1)
        encoder = self._placement.encoder(job.modality)
        request.items.append(Item(job, key, encoder))
        return self._send_job(request.items[-1])

    def _send_job(self, item: Item) -> Tell:
        self._placement.began(item.encoder)
        job = EncodeItem(
            item=item.key,
            modality=item.job.modality,
            url=item.job.url,
            text_before=item.job.text_before,
            wanted=item.layout is not None,
        )
        return Tell(item.encoder, job)

    def _encode_again(self, request: Request, item: Item, reason: str) -> list[Instruction]:
        dropped = Tell(item.encoder, DropItem(item=item.key))
        if item.key.attempt >= MAX_DEATHS + 1:
            text = f"{item.name}: could not be encoded, {reason}"
            return [*self._fail(request, Unavailable(text)), *self._admit()]
        try:
            encoder = self._placement.encoder(item.job.modality)
        except Unavailable as error:
            return [*self._fail(request, error), *self._admit()]
        item.key = replace(item.key, attempt=item.key.attempt + 1)
        item.encoder, item.pending = encoder, True
        return [dropped, self._send_job(item)]

    def _moved(self, request: Request, item: Item, layout: ItemLayout) -> list[Instruction]:
        if layout != item.layout:
            text = f"{item.name}: came back different when it was encoded again"
            return [*self._fail(request, InternalError(text)), *self._admit()]
        if request.placed is None:
            return []
        moved = ItemMoved(
            request=request.key,
            old=replace(item.key, attempt=item.key.attempt - 1),
            item=item.key,
            encoder=item.encoder,
        )
        return [Tell(request.placed.prefill, moved)]

    def _laid_out(self, request: Request) -> list[Instruction]:
        if not request.laid_out or request.phase is not Phase.ENCODING:
            return []
        num_tokens = request.prompt().num_tokens
        limit = self.context_limit()
        if num_tokens >= limit:
            text = f"the prompt has {num_tokens} tokens, prompt and answer may have {limit}"
            error = BadRequest(text, param="messages", code="context_length_exceeded")
            return [*self._fail(request, error), *self._admit()]
        room = min(request.sampling.max_tokens, limit - num_tokens)
        request.sampling = replace(request.sampling, max_tokens=room)
        request.phase = Phase.WAITING
        accepted = Accepted(request.submission.request_id, num_tokens)
        return [accepted, *self._admit()]

    def context_limit(self) -> int:
        """Most tokens that one request may ever need KV for, with the workers there are."""
        pools = [
            max((m.kv_tokens for m in self._membership.serving(stage)), default=self._max_context)
            for stage in (Stage.PREFILL, Stage.DECODE)
        ]
        return min(self._max_context, *pools)

    # ---- admission

    def reserved(self, sender: str, message: Reserved) -> list[Instruction]:
        """Decode holds the blocks: now prefill."""
        request = self._current(message.request.request_id, message.request.attempt)
        if request is None:
            return [Tell(sender, Cancel(request=message.request))]
        if request.phase is not Phase.RESERVING or request.placed is None:
            return []
        request.phase = Phase.ADMITTING
        return [Tell(request.placed.prefill, self._admission(request, message.cached_tokens))]

    def admitted(self, sender: str, message: Admitted) -> list[Instruction]:
        """Everything is held."""
        request = self._current(message.request.request_id, message.request.attempt)
        if request is None:
            return [Tell(sender, Cancel(request=message.request))]
        if request.phase is not Phase.ADMITTING:
            return []
        request.phase = Phase.RUNNING
        request.aged = False
        return self._admit()

    def refused(self, sender: str, message: Refused) -> list[Instruction]:
        """A worker has no room: give back what another holds, and try others or wait."""
        request = self._current(message.request.request_id, message.request.attempt)
        if request is None or request.placed is None:
            return []
        if message.never:
            error = BadRequest(f"{sender}: {message.reason}", code="context_length_exceeded")
            return [*self._fail(request, error), *self._admit()]
        given_back = self._withdraw(request, but=sender)
        request.refused_by.add(sender)
        request.aged = True
        return [*given_back, *self._admit()]

    def room(self) -> list[Instruction]:
        """Some worker has room again, or joined."""
        self._unblock()
        return self._admit()

    def _unblock(self) -> None:
        self._blocked = False
        for request in self._requests.values():
            request.refused_by.clear()

    def _admit(self) -> list[Instruction]:
        """Place waiting requests in order of arrival until one has to wait."""
        told: list[Instruction] = []
        for request in sorted(self._requests.values(), key=lambda r: r.order):
            if request.phase is Phase.WAITING and not self._blocked:
                told += self._place(request)
            trying = request.phase in (Phase.RESERVING, Phase.ADMITTING)
            if self._blocked or (request.aged and trying):
                break
        return told

    def _place(self, request: Request) -> list[Instruction]:
        num_tokens = self._needed(request, request.prompt())
        try:
            placed = self._placement.language(num_tokens, request.refused_by)
        except Unavailable as error:
            return self._fail(request, error)
        if placed is None:
            self._blocked = True
            return []
        request.placed = placed
        self._placement.began(placed.prefill)
        if placed.decode is None:
            request.phase = Phase.ADMITTING
            return [Tell(placed.prefill, self._admission(request, 0))]
        self._placement.began(placed.decode)
        request.phase = Phase.RESERVING
        reserve = Reserve(request=request.key, num_tokens=num_tokens, prefill=placed.prefill)
        return [Tell(placed.decode, reserve)]

    def _needed(self, request: Request, prompt: Prompt) -> int:
        left = request.sampling.max_tokens - len(request.stream.emitted)
        return prompt.num_tokens + min(max(left, 1), HEADROOM)

    def _admission(self, request: Request, cached_tokens: int) -> Admit:
        assert request.placed is not None
        prompt = request.prompt()
        fused = request.placed.decode is None
        return Admit(
            request=request.key,
            prompt=prompt,
            sampling=request.sampling,
            decode=request.placed.decode,
            num_tokens=self._needed(request, prompt) if fused else prompt.num_tokens,
            first_index=len(request.stream.emitted),
            cached_tokens=cached_tokens,
        )

    # ---- running

    def tokens(self, sender: str, runs: Iterable[TokenRun]) -> list[Instruction]:
        """A step produced tokens."""
        told: list[Instruction] = []
        for run in runs:
            request = self._current(run.request.request_id, run.request.attempt)
            if request is None or request.placed is None:
                told.append(Tell(sender, Cancel(request=run.request)))
                continue
            if sender == request.placed.decode and not request.placed.handed_over:
                self._placement.ended(request.placed.prefill)
                request.placed = replace(request.placed, handed_over=True)
            told += self._emit(request, run)
        return told

    def _emit(self, request: Request, run: TokenRun) -> list[Instruction]:
        emitted = request.stream.take(run)
        if emitted is None:
            return []
        emit = Emit(request.submission.request_id, emitted)
        if emitted.finish_reason is None:
            return [emit]
        return [emit, *self._end(request), *self._admit()]

    def request_failed(self, sender: str, message: RequestFailed) -> list[Instruction]:
        """An attempt ended on a worker."""
        request = self._current(message.request.request_id, message.request.attempt)
        if request is None or request.placed is None:
            return []
        if message.status == Overloaded.status:  # it gave its blocks to an older one
            return [*self._withdraw(request, but=sender), *self._admit()]
        error = from_status(message.status, message.reason, code=message.code)
        if isinstance(error, Unavailable):
            return [*self._try_again(request, message.reason), *self._admit()]
        return [*self._fail(request, error), *self._admit()]

    # ---- membership

    def worker_lost(self, name: str) -> list[Instruction]:
        """A worker died or left: what it had goes elsewhere."""
        self._placement.gone(name)
        told: list[Instruction] = []
        for request in sorted(self._requests.values(), key=lambda r: r.order):
            if request.placed is not None and request.placed.needs(name):
                told += self._try_again(request, f"{name} died")
            for item in request.items:
                alive = request.submission.request_id in self._requests
                if alive and item.pending and item.encoder == name:
                    told += self._encode_again(request, item, f"{name} died")
        self._unblock()
        return [*told, *self._admit()]

    # ---- ends

    def _try_again(self, request: Request, reason: str) -> list[Instruction]:
        request.deaths += 1
        if request.deaths > MAX_DEATHS:
            text = f"{reason}; {request.deaths} workers were lost with this request"
            return self._fail(request, Unavailable(text))
        return self._withdraw(request)

    def _withdraw(self, request: Request, but: str | None = None) -> list[Instruction]:
        """End the attempt everywhere (`but` has ended it itself) and queue the next one."""
        told = self._leave_workers(request, but)
        request.attempt += 1
        request.stream.restart()
        request.phase = Phase.WAITING
        return told

    def _leave_workers(self, request: Request, but: str | None = None) -> list[Instruction]:
        placed, request.placed = request.placed, None
        if placed is None:
            return []
        told: list[Instruction] = []
        for name in placed.workers:
            if placed.needs(name):
                self._placement.ended(name)
            if name != but:
                told.append(Tell(name, Cancel(request=request.key)))
        return told

    def _end(self, request: Request) -> list[Instruction]:
        told = self._leave_workers(request)
        for item in request.items:
            if item.pending:
                self._placement.ended(item.encoder)
            told.append(Tell(item.encoder, DropItem(item=item.key)))
        del self._requests[request.submission.request_id]
        return told

    def _fail(self, request: Request, error: EpdError) -> list[Instruction]:
        return [*self._end(request), Failed(request.submission.request_id, error)]

    # ---- look-ups

    def _current(self, request_id: str, attempt: int) -> Request | None:
        request = self._requests.get(request_id)
        return request if request is not None and request.attempt == attempt else None

    def _find_item(self, key: ItemKey) -> tuple[Request, Item] | None:
        request = self._requests.get(key.request_id)
        if request is None or not 0 <= key.index < len(request.items):
            return None
        item = request.items[key.index]
        return (request, item) if item.key == key else None

    def _pending(self, sender: str, key: ItemKey) -> tuple[Request, Item] | None:
        found = self._find_item(key)
        if found is None or found[1].encoder != sender or not found[1].pending:
            return None
        return found

    @property
    def num_requests(self) -> int:
        """Requests that have not ended."""
        return len(self._requests)

    @property
    def num_waiting(self) -> int:
        """Requests that wait for admission."""
        return sum(r.phase is Phase.WAITING for r in self._requests.values())

    @property
    def idle(self) -> bool:
        """Nothing is owned."""
        return not self._requests
