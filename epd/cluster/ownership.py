"""The gateway owns its requests: jobs, layouts, admission, attempts, and the order of tokens.

Every public method is an event. The caller carries out the returned instructions in order. Clients
know their request as a whole; workers know its parts, of which `Attempts` decides.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from epd.cluster.attempts import Attempts, RootOf
from epd.cluster.instructions import Accepted, Instruction, Tell
from epd.cluster.items import Items
from epd.cluster.leaving import needs
from epd.cluster.membership import Membership
from epd.cluster.placement import Placement
from epd.cluster.requests import Item, Phase, Request
from epd.cluster.standing import standing
from epd.cluster.submission import Submission
from epd.errors import BadRequest, InternalError, Overloaded, TooLate, Unavailable, from_status
from epd.prefix import PREFIX_TOKENS
from epd.types import ItemLayout, Member, Stage, TokenRun
from epd.wire.messages import (
    Admitted,
    Cancel,
    DropItem,
    Holding,
    ItemDone,
    ItemFailed,
    ItemMoved,
    LayoutReady,
    PromptLogprobs,
    Refused,
    RequestFailed,
    Reserved,
    RowsLost,
    StopChoice,
)


class Ownership:
    """All requests of one gateway. `max_context` bounds prompt + output.

    `root_of` gives the parent of first blocks by cache salt; None: no KV is reused. Who would wait
    longer than `max_wait_s` for KV is refused.
    """

    def __init__(
        self,
        membership: Membership,
        placement: Placement,
        max_context: int,
        root_of: RootOf | None = None,
        max_wait_s: float = math.inf,
    ) -> None:
        self._membership = membership
        self._placement = placement
        self._max_context = max_context
        self._items = Items(placement)
        self._attempts = Attempts(placement, self._items, root_of, max_wait_s)

    # ---- the client's events

    def submit(self, submission: Submission) -> list[Instruction]:
        """A client asks."""
        request = self._attempts.open(submission)
        try:
            request.pools = self._placement.pools(
                dict.fromkeys(job.needs for job in submission.items)
            )
            jobs = self._items.dispatch(request, submission.items)
        except Unavailable as error:
            return self._attempts.fail(request, error)
        return [*jobs, *self._laid_out(request)]

    def cancel(self, request_id: str) -> list[Instruction]:
        """The client left, or has all it wanted."""
        answer = self._attempts.answer(request_id)
        if answer is None:
            return []
        parts = list(answer.parts.values())
        told = [told for part in parts for told in self._attempts.finish(part)]
        return [*told, *self._attempts.admit()]

    def end_choice(self, request_id: str, choice: int) -> list[Instruction]:
        """The client has all it wanted of one choice; when that was the last, the request ends."""
        answer = self._attempts.answer(request_id)
        parts = [] if answer is None else list(answer.parts.values())
        for part in parts:
            stream = part.stream(choice)
            if stream is not None:
                stream.ended = True
                return self._stop(part, choice)
        return []

    def _stop(self, request: Request, choice: int) -> list[Instruction]:
        if not request.live:
            return [*self._attempts.finish(request), *self._attempts.admit()]
        stop = StopChoice(request=request.key, choice=choice)
        return [Tell(name, stop) for name in request.workers]

    # ---- encode

    def layout(self, sender: str, message: LayoutReady) -> list[Instruction]:
        """An item's place in the prompt is known."""
        found = self._attempts.find_item(message.item)
        if found is None:
            return [Tell(sender, DropItem(item=message.item))]
        request, item = found
        if item.encoder != sender or not item.pending:
            return []
        item.pending = False
        told = self._known(request, item, sender, message.layout)
        return [*told, *self._attempts.resume_items()]  # one that is held leaves its encoder free

    def _known(
        self, request: Request, item: Item, sender: str, layout: ItemLayout
    ) -> list[Instruction]:
        if item.layout is not None:
            return self._moved(request, item, layout)
        if layout.replaces_left > request.num_text_before(item):
            text = f"{item.name}: {sender} replaces more text than stands before it"
            return [*self._attempts.fail(request, InternalError(text)), *self._attempts.admit()]
        item.layout = layout
        return self._laid_out(request)

    def item_failed(self, sender: str, message: ItemFailed) -> list[Instruction]:
        """An item cannot be encoded."""
        found = self._attempts.find_item(message.item)
        if found is None or found[1].encoder != sender or found[1].dropped:
            return []
        error = from_status(message.status, message.reason, code=message.code)
        if isinstance(error, Overloaded):
            return [*self._encode_elsewhere(*found, message), *self._attempts.admit()]
        return [*self._attempts.fail(found[0], error), *self._attempts.admit()]

    def _encode_elsewhere(
        self, request: Request, item: Item, message: ItemFailed
    ) -> list[Instruction]:
        try:
            return self._items.refused(request, item, message.reason, message.retry_after_ms)
        except (Overloaded, Unavailable) as error:
            return self._attempts.fail(request, error)

    def item_done(self, sender: str, message: ItemDone) -> list[Instruction]:
        """An item's rows exist."""
        found = self._attempts.find_item(message.item)
        if found is not None and found[1].encoder == sender:
            self._items.done(found[1])
        return self._attempts.resume_items()

    def reported(self, sender: str, gauges: Mapping[str, int]) -> None:
        """A worker said how much it has to do."""
        self._placement.encoders.reported(sender, gauges)

    def rows_lost(self, sender: str, message: RowsLost) -> list[Instruction]:
        """Prefill waits for rows that their encoder has not got (any more): encode again."""
        found = self._attempts.find_item(message.item)
        if found is None or found[1].pending:
            return []
        request, item = found
        if request.placed is None or request.placed.prefill != sender:
            return []
        return [*self._encode_again(request, item, message.reason), *self._attempts.admit()]

    def _encode_again(self, request: Request, item: Item, reason: str) -> list[Instruction]:
        try:
            return self._items.again(request, item, reason)
        except Unavailable as error:
            return self._attempts.elsewhere(request, error)

    def _moved(self, request: Request, item: Item, layout: ItemLayout) -> list[Instruction]:
        if layout != item.layout:
            text = f"{item.name}: came back different when it was encoded again"
            return [*self._attempts.fail(request, InternalError(text)), *self._attempts.admit()]
        if request.placed is None:
            return []
        moved = ItemMoved(request=request.key, item=item.key, encoder=item.encoder)
        return [Tell(request.placed.prefill, moved)]

    def _laid_out(self, request: Request) -> list[Instruction]:
        if not request.laid_out or request.phase is not Phase.ENCODING:
            return []
        prompt = request.prompt()
        num_tokens = prompt.num_tokens
        limit = self.context_limit()
        if num_tokens >= limit:
            text = f"the prompt has {num_tokens} tokens, prompt and answer may have {limit}"
            error = BadRequest(text, param="messages", code="context_length_exceeded")
            return [*self._attempts.fail(request, error), *self._attempts.admit()]
        room = min(request.sampling.max_tokens, limit - num_tokens)
        request.sampling = replace(request.sampling, max_tokens=room)
        request.phase = Phase.WAITING
        request.answer.num_prompt_tokens = num_tokens
        scored = request.sampling.prompt_logprobs is not None
        told = scored or request.answer.submission.tells_prompt
        token_ids = tuple(prompt.token_ids()) if told else ()
        row_spans = prompt.row_spans if told else ()
        return [
            Accepted(request.request_id, num_tokens, token_ids, row_spans),
            *self._items.run_needed(request),
            *self._part_choices(request),
            *self._attempts.admit(),
        ]

    def _part_choices(self, request: Request) -> list[Instruction]:
        """Choices that fit nowhere together are made one by one."""
        fits = request.needed_tokens(request.prompt()) <= self._kv_limit()
        return [] if fits or len(request.choices) == 1 else self._attempts.split(request)

    def context_limit(self) -> int:
        """Most tokens that one choice may ever need KV for, with the workers there are."""
        return min(self._max_context, self._kv_limit())

    def _kv_limit(self) -> int:
        """KV of the largest workers."""
        stages = (Stage.PREFILL, Stage.DECODE)
        serving = [self._membership.serving(stage) for stage in stages]
        return min(max((m.kv_tokens for m in s), default=self._max_context) for s in serving)

    # ---- admission

    def reserved(self, sender: str, message: Reserved) -> list[Instruction]:
        """Decode holds the blocks: now prefill."""
        request = self._attempts.current(message.request)
        if request is None:
            return [Tell(sender, Cancel(request=message.request))]
        if request.phase is not Phase.RESERVING or request.placed is None:
            return []
        request.phase = Phase.ADMITTING
        most = len(request.blocks) * PREFIX_TOKENS
        self._placement.expected.correct(sender, request.blocks, message.cached_tokens, most)
        return [Tell(request.placed.prefill, request.admission(message.cached_tokens))]

    def admitted(self, sender: str, message: Admitted) -> list[Instruction]:
        """Everything is held, and what is not cached will be computed."""
        request = self._attempts.current(message.request)
        if request is None:
            return [Tell(sender, Cancel(request=message.request))]
        if request.phase is not Phase.ADMITTING:
            return []
        request.phase = Phase.RUNNING
        request.aged, request.queued = False, True
        answer = request.answer
        if answer.num_cached_tokens is None:
            answer.num_cached_tokens = message.cached_tokens
        for name in request.workers:
            self._placement.expected.add(name, request.blocks)
        items = self._items.admitted(request, message.cached_tokens)
        return [*items, *self._attempts.admit()]

    def refused(self, sender: str, message: Refused) -> list[Instruction]:
        """A worker has no room: give back what another holds, and try others or wait."""
        request = self._attempts.current(message.request)
        if request is None or sender not in request.workers:
            return []
        if message.never:
            error = BadRequest(f"{sender}: {message.reason}", code="context_length_exceeded")
            return [*self._attempts.fail(request, error), *self._attempts.admit()]
        self._attempts.pace(sender, message.retry_after_ms)
        request.refused_by.add(sender)
        request.aged = True
        return [*self._attempts.withdraw(request, but=sender), *self._attempts.admit()]

    def room(self) -> list[Instruction]:
        """Some worker has room again, or joined."""
        self._attempts.unblock()
        return self._attempts.admit()

    # ---- running

    def tokens(self, sender: str, runs: Iterable[TokenRun]) -> list[Instruction]:
        """A step produced tokens."""
        return [told for run in runs for told in self._take(sender, run)]

    def prompt_logprobs(self, message: PromptLogprobs) -> list[Instruction]:
        """Prefill computed a chunk; with the last one the tokens that came before it go out."""
        request = self._attempts.current(message.request)
        if request is None:
            return []
        answer = request.answer
        answer.score(message.first_token, message.logprobs)
        if not answer.scored:
            return []
        early, answer.early = answer.early, []
        return [told for sender, run in early for told in self._take(sender, run)]

    def _take(self, sender: str, run: TokenRun) -> list[Instruction]:
        request = self._attempts.current(run.request)
        if request is None or request.placed is None:
            return [Tell(sender, Cancel(request=run.request))]
        answer = request.answer
        if not answer.scored:
            answer.early.append((sender, run))
            return []
        stream = request.stream(run.choice)
        if stream is None:  # it learnt of the choice after we had ended it
            return [Tell(sender, StopChoice(request=run.request, choice=run.choice))]
        emitted = stream.take(run)
        if emitted is None:
            return []
        emit = answer.emit(emitted)
        if emitted.finish_reason is not None and not request.live:
            return [emit, *self._attempts.finish(request), *self._attempts.admit()]
        if sender == request.placed.decode and not request.handed_over and request.decoded:
            request.handed_over = True  # no token before decode's own is missing
            self._placement.ended(request.placed.prefill)
        if self._attempts.suspects.proven(request):
            return [emit, *self._attempts.admit()]
        return [emit]

    def request_failed(self, sender: str, message: RequestFailed) -> list[Instruction]:
        """An attempt ended on a worker."""
        request = self._attempts.current(message.request)
        if request is None or sender not in request.workers:
            return []
        if message.status == Overloaded.status:  # it gave its blocks to an older one
            self._attempts.remember(request)
            return [*self._attempts.withdraw(request, but=sender), *self._attempts.admit()]
        error = from_status(message.status, message.reason, code=message.code)
        if isinstance(error, TooLate) or not isinstance(error, Unavailable):
            return [*self._attempts.fail(request, error), *self._attempts.admit()]
        # Its partner died, or they cannot reach each other. If it died, the news is still to come.
        partner = next((name for name in request.workers if name != sender), None)
        self._attempts.suspects.mourn(request, partner)
        request.apart.add(frozenset(request.workers))
        again = self._attempts.try_again(request, message.reason)
        return [*again, *self._attempts.admit()]

    # ---- membership

    def needs(self, member: Member) -> bool:
        """Some request would lose by it if this draining worker left now."""
        return any(needs(r, member, self._membership) for r in self._attempts.in_order)

    def worker_lost(self, name: str, *, left: bool = False) -> list[Instruction]:
        """A worker died, or `left` of its own will: what it had goes elsewhere."""
        self._attempts.gone(name)
        told = [] if left else self._attempts.blame(name)
        for request in self._attempts.in_order:
            if self._attempts.alive(request):  # another part of its answer may have failed
                told += self._without(request, name, left=left)
        return [*told, *self.room()]

    def _without(self, request: Request, name: str, *, left: bool) -> list[Instruction]:
        """What one request does without a worker that is gone."""
        told: list[Instruction] = []
        counted = request.mourned == name
        if counted:
            request.mourned = None
            request.deaths -= left
        if name in request.workers:
            reason = f"{name} {'left' if left else 'died'}"
            told += self._attempts.try_again(request, reason, counted=counted or left)
        items = request.items
        for item in items:
            lost = item.pending and item.encoder == name
            if lost and self._attempts.alive(request) and request.items is items:
                told += self._encode_again(request, item, f"{name} died")
        return told

    def holding(self, sender: str, message: Holding) -> list[Instruction]:
        """What a worker says it holds: it is to let go of what it has no part in any more."""
        stale: list[Instruction] = []
        for key in message.requests:
            request = self._attempts.current(key)
            if request is None or sender not in request.workers:
                stale.append(Tell(sender, Cancel(request=key)))
        for item in message.items:
            found = self._attempts.find_item(item)
            if found is None or found[1].encoder != sender or found[1].dropped:
                stale.append(Tell(sender, DropItem(item=item)))
        return stale

    # ---- what is owned

    def standing(self, request_id: str) -> list[dict[str, Any]]:
        """Where each part of a client's request stands."""
        answer = self._attempts.answer(request_id)
        return [] if answer is None else [standing(part) for part in answer.parts.values()]

    def owns(self, request_id: str) -> bool:
        """A client's request that has not ended."""
        return self._attempts.answer(request_id) is not None

    @property
    def num_requests(self) -> int:
        """Requests of clients that have not ended."""
        return self._attempts.num_answers

    @property
    def num_waiting(self) -> int:
        """Requests, or parts of them, that wait for admission."""
        return sum(r.phase is Phase.WAITING for r in self._attempts.in_order)

    @property
    def num_running(self) -> int:
        """Requests of clients that a language worker has admitted."""
        running = (r for r in self._attempts.in_order if r.phase is Phase.RUNNING)
        return len({r.answer.request_id for r in running})

    @property
    def idle(self) -> bool:
        """Nothing is owned."""
        return not self._attempts.num_answers
