"""Attempts of requests: placed, withdrawn, split into their choices, ended.

Admission is all or nothing and first come, first served, those of a lower priority before others:
a refused request gives back what it held and goes back to its place; nobody overtakes it until some
worker has room again. A step of priority is worth so many places in the line and no more, so that
who waits is overtaken by so many and no more.
"""

from __future__ import annotations

from collections.abc import Callable

from epd.cluster.expected import continued
from epd.cluster.instructions import Failed, Instruction, Tell
from epd.cluster.items import Items
from epd.cluster.placement import Placement
from epd.cluster.queue import Queue, place_in_line
from epd.cluster.requests import Answer, Item, Phase, Request
from epd.cluster.submission import Submission
from epd.cluster.suspects import Suspects
from epd.errors import EpdError, InternalError, Overloaded, Unavailable
from epd.prefix import PREFIX_TOKENS
from epd.types import ItemKey, RequestKey
from epd.wire.messages import Cancel, Reserve

MAX_DEATHS = 3
"""Attempts that one request may lose to dying workers."""

RootOf = Callable[[str], bytes]
"""The parent of first blocks, by cache salt."""


class Attempts:
    """All requests of one gateway and what their workers are told. `root_of` None: no KV is
    reused."""

    def __init__(
        self, placement: Placement, items: Items, root_of: RootOf | None, max_wait_s: float
    ) -> None:
        self._placement = placement
        self._items = items
        self._root_of = root_of
        self._queue = Queue(max_wait_s)
        self.suspects = Suspects()
        self._answers: dict[str, Answer] = {}
        self._requests: dict[str, Request] = {}
        self._arrivals = 0
        self._blocked = False

    # ---- the records

    def open(self, submission: Submission) -> Request:
        """A client's request, the youngest of all."""
        self._arrivals += 1
        root = None if self._root_of is None else self._root_of(submission.cache_salt)
        answer = Answer.of(submission, root)
        self._answers[answer.request_id] = answer
        request = Request(
            answer.request_id,
            answer,
            self._arrivals,
            choices=tuple(answer.streams),
            sampling=submission.sampling,
        )
        self._add(request)
        return request

    def answer(self, request_id: str) -> Answer | None:
        """What a client still waits for."""
        return self._answers.get(request_id)

    def current(self, key: RequestKey) -> Request | None:
        """The request whose current attempt this is."""
        request = self._requests.get(key.request_id)
        return request if request is not None and request.attempt == key.attempt else None

    def find_item(self, key: ItemKey) -> tuple[Request, Item] | None:
        """The item whose current attempt this is, and its request."""
        request = self._requests.get(key.request_id)
        if request is None or not 0 <= key.index < len(request.items):
            return None
        item = request.items[key.index]
        return (request, item) if item.key == key else None

    def alive(self, request: Request) -> bool:
        """It has not ended."""
        return request.request_id in self._requests

    @property
    def in_order(self) -> list[Request]:
        """Everything that workers may have a part in, oldest first."""
        return sorted(self._requests.values(), key=lambda r: r.order)

    @property
    def num_answers(self) -> int:
        """Clients that wait."""
        return len(self._answers)

    def _add(self, request: Request) -> None:
        self._requests[request.request_id] = request
        request.answer.parts[request.request_id] = request

    def _remove(self, request: Request) -> None:
        self.suspects.discard(request)
        del self._requests[request.request_id]
        del request.answer.parts[request.request_id]

    # ---- admission

    def unblock(self) -> None:
        """Some worker may have room that had none."""
        self._blocked = False
        for request in self._requests.values():
            request.refused_by.clear()

    def admit(self) -> list[Instruction]:
        """Whoever may go on does, until nobody can: what ends on the way makes room for others."""
        told: list[Instruction] = []
        while more := [*self._encode_waiting(), *self._place_waiting()]:
            told += more
        return told

    def resume_items(self) -> list[Instruction]:
        """An encoder may be free for items that wait for one."""
        return self.admit() if self._items.waiting else []

    def _encode_waiting(self) -> list[Instruction]:
        told: list[Instruction] = []
        for request, item in self._items.waiting:
            try:
                told += self._items.resume(request, item)
            except (Overloaded, Unavailable) as error:
                told += self.fail(request, error)
        return told

    def _place_waiting(self) -> list[Instruction]:
        """Requests in their order, see `place_in_line`, until one has to wait."""
        told: list[Instruction] = []
        for request in self._in_line:
            waiting = self.alive(request) and request.phase is Phase.WAITING
            if waiting and not self._blocked:
                told += self._place(request)
            trying = request.phase in (Phase.RESERVING, Phase.ADMITTING)
            if self._blocked or (request.aged and trying):
                break
        return [*told, *self._refuse_newcomers()]

    @property
    def _in_line(self) -> list[Request]:
        return sorted(self._requests.values(), key=place_in_line)

    def pace(self, name: str, interval_ms: int) -> None:
        """A worker that refused says how often it has room."""
        self._queue.pace(name, interval_ms)

    def gone(self, name: str) -> None:
        """A worker died or left."""
        self._placement.gone(name)
        self._queue.pace(name, 0)

    def _refuse_newcomers(self) -> list[Instruction]:
        """Whoever would wait too long is told so at once; who was let in to wait, waits."""
        if not self._blocked:
            return []
        told: list[Instruction] = []
        waiting = [request for request in self._in_line if request.phase is Phase.WAITING]
        for ahead, request in enumerate(waiting):
            late = None if request.queued or request.deaths else self._queue.refusal(ahead)
            request.queued = True
            if late is not None:
                told += self.fail(request, late)
        return told

    def _place(self, request: Request) -> list[Instruction]:
        num_tokens = request.needed_tokens(request.prompt())
        pools = request.pools if request.bound else None
        suspects = self.suspects.workers(request)
        try:
            placed = self._placement.language(
                num_tokens, request.refused_by, pools, request.blocks, request.apart, suspects
            )
        except Unavailable as error:
            return self.elsewhere(request, error)
        if placed is None:
            self._blocked = True
            return []
        if request in self.suspects and not suspects.isdisjoint(placed.names):
            return []  # nobody else waits for that
        request.placed = placed
        request.pools = {self._placement.pool(placed)}
        self._placement.began(placed.prefill)
        if placed.decode is None:
            request.phase = Phase.ADMITTING
            return [Tell(placed.prefill, request.admission(0))]
        self._placement.began(placed.decode)
        request.phase = Phase.RESERVING
        reserve = Reserve(
            request=request.key,
            num_tokens=num_tokens,
            prefill=placed.prefill,
            prefix=request.prefix,
        )
        return [Tell(placed.decode, reserve)]

    # ---- the next attempt

    def try_again(
        self, request: Request, reason: str, *, counted: bool = False
    ) -> list[Instruction]:
        """A worker was lost with it, which counts unless it has been counted."""
        request.deaths += not counted
        if request.deaths > MAX_DEATHS:
            text = f"{reason}; {request.deaths} workers were lost with this request"
            return self.fail(request, Unavailable(text))
        return self.withdraw(request)

    def blame(self, name: str) -> list[Instruction]:
        """A worker died. Who was with the second one to die, alone among suspects, has failed."""
        cause = self.suspects.died(name, self.in_order)
        if cause is not None:
            text = f"two workers died with this request, last {name}"
            return self.fail(cause, InternalError(text))
        items = [(request, item) for request in self.in_order for item in request.items]
        found = self._items.died(name, items)
        if found is None:
            return []
        text = f"{found[1].name}: two encode workers died with it, last {name}"
        return self.fail(found[0], InternalError(text))

    def withdraw(self, request: Request, but: str | None = None) -> list[Instruction]:
        """End the attempt everywhere (`but` has ended it itself) and queue the next one."""
        told = self._leave_workers(request, but)
        if not request.whole and len(request.live) > 1:
            return [*told, *self.split(request)]
        request.restart()
        return told

    def split(self, request: Request) -> list[Instruction]:
        """Queue each choice by itself: their prompts differ, or they do not fit together."""
        parts = [request.part(choice) for choice in request.live]
        for part in parts:
            self._add(part)
            if request in self.suspects:
                self.suspects.add(part)
        told = self._items.end(request)
        self._remove(request)
        try:
            for part in parts:
                told += self._items.dispatch_again(part, request.items)
        except Unavailable as error:
            told += self.fail(request, error)
        return told

    def elsewhere(self, request: Request, error: Unavailable) -> list[Instruction]:
        """Its pool serves it no more: it begins again in another one, unless tokens are out."""
        jobs = [item.job for item in request.items]
        try:
            pools = self._placement.pools(dict.fromkeys(job.needs for job in jobs))
        except Unavailable:
            pools = set()
        pools -= request.pools
        if not (jobs and request.whole and pools):
            return self.fail(request, error)
        told = [*self._leave_workers(request), *self._items.end(request)]
        request.begin_again(pools)
        return [*told, *self._items.dispatch(request, jobs)]

    def _leave_workers(self, request: Request, but: str | None = None) -> list[Instruction]:
        told: list[Instruction] = []
        for name in request.workers:
            self._placement.ended(name)
            if name != but:
                told.append(Tell(name, Cancel(request=request.key)))
        request.placed = None
        return told

    # ---- ends

    def finish(self, request: Request) -> list[Instruction]:
        """It has all that it was to have, or nobody wants more: what it computed may be of use."""
        self.remember(request)
        return self._end(request)

    def fail(self, request: Request, error: EpdError) -> list[Instruction]:
        """No answer: the client is told once, whatever its request has become."""
        told = [told for part in list(request.answer.parts.values()) for told in self._end(part)]
        return [*told, Failed(request.answer.request_id, error)]

    def remember(self, request: Request) -> None:
        """The worker that decoded it should have the KV of its answer, too."""
        if request.placed is None or request.phase is not Phase.RUNNING:
            return
        prefix = request.prefix
        if prefix is None:
            return
        name = request.placed.decode or request.placed.prefill
        tail = request.prompt().token_ids()[len(prefix.blocks) * PREFIX_TOKENS :]
        for generated in request.generated():
            more = continued(prefix, tail, generated)
            self._placement.expected.add(name, [*prefix.blocks, *more])

    def _end(self, request: Request) -> list[Instruction]:
        told = [*self._leave_workers(request), *self._items.end(request)]
        self._remove(request)
        if not request.answer.parts:
            del self._answers[request.answer.request_id]
        if request.phase is Phase.WAITING:  # it may have been the one that the others wait behind
            self._blocked = False
        return told
