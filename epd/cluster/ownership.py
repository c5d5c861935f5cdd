"""The gateway owns its requests: jobs, layouts, admission, attempts, and the order of tokens.

Every public method is an event. The caller carries out the returned instructions in order.
Admission is all or nothing and first come, first served: a refused request gives back what it held
and goes back to its place; nobody overtakes it until some worker has room again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from epd.cluster.instructions import Accepted, Emit, Failed, Instruction, Tell
from epd.cluster.membership import Membership
from epd.cluster.placement import Placement
from epd.cluster.requests import Item, ItemJob, Phase, Request, Submission
from epd.errors import BadRequest, EpdError, InternalError, Overloaded, Unavailable, from_status
from epd.types import ItemKey, ItemLayout, Stage, TokenRun
from epd.wire.messages import (
    Admitted,
    Cancel,
    DropItem,
    EncodeItem,
    Holding,
    ItemFailed,
    ItemMoved,
    LayoutReady,
    Refused,
    RequestFailed,
    Reserve,
    Reserved,
    RowsLost,
)

MAX_DEATHS = 3
"""Attempts that one request, or one item, may lose to dying workers."""


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
            request.pools = self._placement.pools({job.modality for job in submission.items})
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
        found = self._find_item(message.item)
        if found is None:
            return [Tell(sender, DropItem(item=message.item))]
        request, item = found
        if item.encoder != sender or not item.pending:
            return []
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
        return [*self._encode_again(request, item, message.reason), *self._admit()]

    def _dispatch(self, request: Request, job: ItemJob) -> Tell:
        key = ItemKey(request.submission.request_id, len(request.items), 1)
        encoder = self._placement.encoder(job.modality, request.pools)
        request.pools = {encoder.pool}
        request.items.append(Item(job, key, encoder.name))
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
        item.losses += 1
        if item.losses > MAX_DEATHS:
            text = f"{item.name}: could not be encoded, {reason}"
            return self._fail(request, Unavailable(text))
        try:
            encoder = self._placement.encoder(item.job.modality, request.pools)
        except Unavailable as error:
            return self._fail(request, error)
        item.key = replace(item.key, attempt=item.key.attempt + 1)
        item.encoder, item.pending = encoder.name, True
        return [dropped, self._send_job(item)]

    def _moved(self, request: Request, item: Item, layout: ItemLayout) -> list[Instruction]:
        if layout != item.layout:
            text = f"{item.name}: came back different when it was encoded again"
            return [*self._fail(request, InternalError(text)), *self._admit()]
        if request.placed is None:
            return []
        moved = ItemMoved(
            request=request.key,
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
        return [Tell(request.placed.prefill, request.admission(message.cached_tokens))]

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
        if request is None or sender not in request.workers:
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
        num_tokens = request.needed_tokens(request.prompt())
        try:
            pools = request.pools if request.items else None
            placed = self._placement.language(num_tokens, request.refused_by, pools)
        except Unavailable as error:
            return self._fail(request, error)
        if placed is None:
            self._blocked = True
            return []
        request.placed = placed
        self._placement.began(placed.prefill)
        if placed.decode is None:
            request.phase = Phase.ADMITTING
            return [Tell(placed.prefill, request.admission(0))]
        self._placement.began(placed.decode)
        request.phase = Phase.RESERVING
        reserve = Reserve(request=request.key, num_tokens=num_tokens, prefill=placed.prefill)
        return [Tell(placed.decode, reserve)]

    # ---- running

    def tokens(self, sender: str, runs: Iterable[TokenRun]) -> list[Instruction]:
        """A step produced tokens."""
        told: list[Instruction] = []
        for run in runs:
            request = self._current(run.request.request_id, run.request.attempt)
            if request is None or request.placed is None:
                told.append(Tell(sender, Cancel(request=run.request)))
                continue
            emitted = self._emit(request, run)
            told += emitted
            if emitted and request.placed is not None and sender == request.placed.decode:
                self._hand_over(request, request.placed.prefill)
        return told

    def _hand_over(self, request: Request, prefill: str) -> None:
        """Decode runs and no token before its own is missing: prefill is done with the request."""
        if not request.handed_over:
            request.handed_over = True
            self._placement.ended(prefill)

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
        if request is None or sender not in request.workers:
            return []
        if message.status == Overloaded.status:  # it gave its blocks to an older one
            return [*self._withdraw(request, but=sender), *self._admit()]
        error = from_status(message.status, message.reason, code=message.code)
        if not isinstance(error, Unavailable):
            return [*self._fail(request, error), *self._admit()]
        # Its partner died, or they cannot reach each other. If it died, the news is still to come.
        request.mourned = next((name for name in request.workers if name != sender), None)
        return [*self._try_again(request, message.reason), *self._admit()]

    # ---- membership

    def worker_lost(self, name: str) -> list[Instruction]:
        """A worker died or left: what it had goes elsewhere."""
        self._placement.gone(name)
        told: list[Instruction] = []
        for request in sorted(self._requests.values(), key=lambda r: r.order):
            told += self._without(request, name)
        self._unblock()
        return [*told, *self._admit()]

    def holding(self, sender: str, message: Holding) -> list[Instruction]:
        """What a worker says it holds: it is to let go of what it has no part in any more."""
        stale: list[Instruction] = []
        for key in message.requests:
            request = self._current(key.request_id, key.attempt)
            if request is None or sender not in request.workers:
                stale.append(Tell(sender, Cancel(request=key)))
        for item in message.items:
            found = self._find_item(item)
            if found is None or found[1].encoder != sender:
                stale.append(Tell(sender, DropItem(item=item)))
        return stale

    def _without(self, request: Request, name: str) -> list[Instruction]:
        """What one request does without a worker that died."""
        told: list[Instruction] = []
        if name in request.workers:
            counted = request.mourned == name
            told += self._try_again(request, f"{name} died", counted=counted)
        if request.mourned == name:
            request.mourned = None
        for item in request.items:
            alive = request.submission.request_id in self._requests
            if alive and item.pending and item.encoder == name:
                told += self._encode_again(request, item, f"{name} died")
        return told

    # ---- ends

    def _try_again(
        self, request: Request, reason: str, *, counted: bool = False
    ) -> list[Instruction]:
        request.deaths += not counted
        if request.deaths > MAX_DEATHS:
            text = f"{reason}; {request.deaths} workers were lost with this request"
            return self._fail(request, Unavailable(text))
        return self._withdraw(request)

    def _withdraw(self, request: Request, but: str | None = None) -> list[Instruction]:
        """End the attempt everywhere (`but` has ended it itself) and queue the next one."""
        told = self._leave_workers(request, but)
        request.restart()
        return told

    def _leave_workers(self, request: Request, but: str | None = None) -> list[Instruction]:
        told: list[Instruction] = []
        for name in request.workers:
            self._placement.ended(name)
            if name != but:
                told.append(Tell(name, Cancel(request=request.key)))
        request.placed = None
        return told

    def _end(self, request: Request) -> list[Instruction]:
        told = self._leave_workers(request)
        for item in request.items:
            if item.pending:
                self._placement.ended(item.encoder)
            told.append(Tell(item.encoder, DropItem(item=item.key)))
        del self._requests[request.submission.request_id]
        if request.phase is Phase.WAITING:  # it may have been the one that the others wait behind
            self._blocked = False
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
