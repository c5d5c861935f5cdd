"""The items of requests: who encodes them, whose tower waits, what is encoded again.

An item whose source was admitted before may have its KV cached, so its tower is held back until
that is known. Nothing waits for ever: admission runs or drops every held item, and so does the end
of its request; a pull runs it in any case.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from epd.cluster.costs import cost
from epd.cluster.instructions import Instruction, Tell
from epd.cluster.placement import Placement
from epd.cluster.recent import Recent
from epd.cluster.requests import Item, Request
from epd.cluster.submission import ItemJob
from epd.errors import Overloaded, Unavailable
from epd.types import ItemKey, Member
from epd.wire.messages import DropItem, EncodeItem, RunTower

MAX_LOSSES = 3
"""How often one attempt of a request may lose the same item."""

SOURCES = 1 << 14
"""Sources that are remembered."""


class Items:
    """Sends the jobs of all requests. Unavailable, from where it is raised, fails the request."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._admitted: Recent[tuple[str, bytes]] = Recent(SOURCES)
        self._tested: dict[int, Item] = {}  # suspects that an encoder has, by identity
        self._waiting: dict[int, tuple[Request, Item]] = {}  # suspects without one

    def dispatch(self, request: Request, jobs: Iterable[ItemJob]) -> list[Instruction]:
        """Send the items of a new request; all of them to one pool."""
        self._place(request, jobs)
        for item in request.items:
            item.held = request.reuses_kv and self._source(request, item) in self._admitted
        return [self._send(request, item) for item in request.items]

    def dispatch_again(self, request: Request, known: list[Item]) -> list[Instruction]:
        """The same for a request that goes on with a prompt whose layouts are `known`."""
        self._place(request, [old.job for old in known])
        for item, old in zip(request.items, known, strict=True):
            item.layout = old.layout
        self._hold_cached(request)
        return [self._send(request, item) for item in request.items]

    def again(self, request: Request, item: Item, reason: str) -> list[Instruction]:
        """Its encoder lost it."""
        item.losses += 1
        if item.losses > MAX_LOSSES:
            raise Unavailable(f"{item.name}: could not be encoded, {reason}")
        dropped = Tell(item.encoder, DropItem(item=item.key))
        item.refused.clear()
        return [dropped, *self._elsewhere(request, item)]

    def refused(
        self, request: Request, item: Item, reason: str, retry_after_ms: int
    ) -> list[Instruction]:
        """Its encoder has no room: another one may have. Overloaded where none has."""
        item.refused[item.encoder] = retry_after_ms
        return self._elsewhere(request, item, reason)

    def _elsewhere(self, request: Request, item: Item, reason: str = "") -> list[Instruction]:
        """Nowhere for now, if it is a suspect and all the others that could have it have one."""
        salt = request.answer.submission.cache_salt
        self._tested.pop(id(item), None)
        self._placement.encoders.ended(item.encoder, item.key)
        self._placement.encoders.not_there(item.encoder, item.job, salt)
        choose = partial(self._placement.encoders.choose, item.job, salt, request.pools)
        taken = {*item.refused, *self._testing}
        # Who lost it comes last: the link between it and prefill may be cut.
        encoder = choose({*taken, item.encoder}) or choose(taken)
        if encoder is None and (not item.suspect or not self._testing):
            encoder = choose(item.refused)
            if encoder is None:
                raise Overloaded(reason, retry_after_s=min(item.refused.values()) / 1000)
        item.pending, item.dropped = True, False
        item.held = item.held and item.layout is None
        if encoder is None:
            item.encoder = ""
            self._waiting[id(item)] = request, item
            return []
        item.key = replace(item.key, attempt=item.key.attempt + 1)
        self._goes_to(request, item, encoder)
        return [self._send(request, item)]

    @property
    def _testing(self) -> set[str]:
        """Encoders that are busy with a suspect: one that is held there keeps nobody waiting."""
        return {item.encoder for item in self._tested.values() if item.at_work}

    def done(self, item: Item) -> None:
        """Its rows are there, and its encoder lives."""
        item.done, item.suspect = True, False
        self._tested.pop(id(item), None)
        self._placement.encoders.ended(item.encoder, item.key)

    @property
    def waiting(self) -> list[tuple[Request, Item]]:
        """Suspects that wait for an encoder where no other one is."""
        return list(self._waiting.values())

    def resume(self, request: Request, item: Item) -> list[Instruction]:
        """There may be such an encoder now for one that waits."""
        if self._waiting.pop(id(item), None) is None:
            return []
        return self._elsewhere(request, item)

    def died(self, name: str, items: Iterable[tuple[Request, Item]]) -> tuple[Request, Item] | None:
        """An encoder died: who was the cause, if that is clear. The others there are suspects."""
        there = [(r, i) for r, i in items if i.encoder == name and i.at_work]
        again = [(r, i) for r, i in there if i.suspect]
        if len(again) == 1:
            return again[0]
        for _, item in there:
            item.suspect = True
            self._tested.pop(id(item), None)
        return None

    def run_needed(self, request: Request) -> list[Instruction]:
        """All layouts are known: what no worker is expected to have KV of need not wait."""
        cached = self._expected(request)
        return [
            instruction
            for item, end in request.row_ends()
            if end > cached
            for instruction in self._run(item)
        ]

    def admitted(self, request: Request, cached_tokens: int) -> list[Instruction]:
        """Prefill has KV of so many tokens, and will pull no row that only they take."""
        told: list[Instruction] = []
        for item, end in request.row_ends():
            if item.job.source:
                self._admitted.touch([self._source(request, item)])
            told += self._run(item) if end > cached_tokens else self._drop(item)
        return told

    def end(self, request: Request) -> list[Instruction]:
        """The request needs none of them any more."""
        return [told for item in request.items for told in self._drop(item)]

    def _place(self, request: Request, jobs: Iterable[ItemJob]) -> None:
        """The costliest first, for the others to fill what gaps it leaves; sent in their order."""
        salt = request.answer.submission.cache_salt
        request.items = [
            Item(job, ItemKey(request.request_id, index, 1), "") for index, job in enumerate(jobs)
        ]
        for item in sorted(request.items, key=lambda item: -cost(item.job)):
            encoder = self._placement.encoders.choose(item.job, salt, request.pools)
            assert encoder is not None, "nobody has refused it"
            request.pools = {encoder.pool}
            self._goes_to(request, item, encoder)

    def _goes_to(self, request: Request, item: Item, encoder: Member) -> None:
        salt = request.answer.submission.cache_salt
        item.encoder, item.done = encoder.name, False
        if item.suspect:
            self._tested[id(item)] = item
        self._placement.encoders.sent(encoder, item.key, item.job, salt)

    def _hold_cached(self, request: Request) -> None:
        cached = self._expected(request)
        for item, end in request.row_ends():
            item.held = end <= cached

    def _expected(self, request: Request) -> int:
        """Tokens whose KV some worker should have that could prefill the request."""
        if not request.reuses_kv:
            return 0
        return self._placement.longest(request.blocks, request.pools)

    @staticmethod
    def _send(request: Request, item: Item) -> Tell:
        job = EncodeItem(
            item=item.key,
            modality=item.job.modality,
            url=item.job.url,
            text_before=item.job.text_before,
            form=item.job.form,
            pieces=item.job.pieces,
            options=item.job.options,
            salt=request.answer.submission.cache_salt,
            wanted=item.layout is not None,
            hold=item.held,
            cost=cost(item.job),
        )
        return Tell(item.encoder, job)

    @staticmethod
    def _run(item: Item) -> list[Instruction]:
        if not item.held:
            return []
        item.held = False
        return [Tell(item.encoder, RunTower(item=item.key))]

    def _drop(self, item: Item) -> list[Instruction]:
        self._tested.pop(id(item), None)
        self._waiting.pop(id(item), None)
        if not item.encoder:  # it waits, or another one of its request could not be placed
            return []
        self._placement.encoders.ended(item.encoder, item.key)
        item.pending, item.held, item.dropped = False, False, True
        return [Tell(item.encoder, DropItem(item=item.key))]

    @staticmethod
    def _source(request: Request, item: Item) -> tuple[str, bytes]:
        return request.answer.submission.cache_salt, item.job.source
