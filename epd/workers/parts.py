"""Chunks of KV of which every rank of this worker has its own part: rank 0's view of the others'.

Where a part does not lie in memory that its rank reads at once, it is fetched before the chunk is
looked at; so nothing is written to pages later than rank 0 orders it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from epd.engine.exchange import KvExchange
from epd.engine.ranks.ends import FETCHED
from epd.engine.ranks.leading import Lent
from epd.engine.ranks.tasks import Task
from epd.types import Member
from epd.wire.messages import KvChunk, Payload
from epd.workers.introductions import packed
from epd.workers.places import place_of


def lent_at(member: Member, payload: Payload) -> Lent:
    """Where the ranks of this worker and of ours hand over what goes with a payload."""
    return Lent(member.name, partial(packed, member), place_of(payload))


@dataclass(frozen=True, slots=True, eq=False)
class Taking:
    """A chunk that the other ranks are taking. `unread`: they do not read it any more."""

    prefill: str
    chunk: KvChunk
    task: Task
    unread: Callable[[], None]


class Parts:
    """Those on their way. Step thread only."""

    def __init__(self, exchange: KvExchange) -> None:
        self._exchange = exchange
        self._fetched: dict[tuple[str, int], Task] = {}  # by sender and number
        self._taking: list[Taking] = []

    @property
    def any(self) -> bool:
        """Whether any rank is at work here."""
        return bool(self._fetched or self._taking)

    def fits(self, member: Member, payload: Payload) -> bool:
        """Whether it is of one rank, or of as many as we are."""
        size = self._exchange.num_ranks
        return payload.ranks == 1 or payload.ranks == size == 1 + len(member.ranks)

    def are_here(self, member: Member, chunk: KvChunk) -> bool:
        """Whether every rank can take its part, or knows why not. Asked again until it says so."""
        payload = chunk.payload
        if payload.ranks == 1 or place_of(payload).kind not in FETCHED:
            return True
        key = member.name, payload.number
        task = self._fetched.get(key)
        if task is None:
            at = lent_at(member, payload)
            task = self._exchange.expect_parts(chunk.num_tokens, chunk.num_layers, at)
            self._fetched[key] = task
        return task.done()

    def take(self, member: Member, chunk: KvChunk, kv: torch.Tensor) -> Task:
        """Write rank 0's part, `kv`, and have the others write theirs."""
        self._fetched.pop((member.name, chunk.payload.number), None)
        at = lent_at(member, chunk.payload)
        where = chunk.request, chunk.first_token, chunk.first_layer
        return self._exchange.take_parts(*where, kv, at)

    def watch(self, taking: Taking) -> None:
        """ended() has it once the others have taken it."""
        self._taking.append(taking)

    def ended(self) -> list[Taking]:
        """Those that the other ranks have, or could not take."""
        done = [each for each in self._taking if each.task.done()]
        self._taking = [each for each in self._taking if each not in done]
        return done

    def discard(self, sender: str, payload: Payload) -> None:
        """A chunk was looked at: what was fetched of it and not taken is not needed."""
        if self._fetched.pop((sender, payload.number), None) is not None:
            self._exchange.led.discard(sender, payload.number)

    def peer_lost(self, name: str) -> None:
        """The other ranks let go of all that they have of it."""
        if self._exchange.num_ranks > 1:
            self._exchange.led.part_from(name)
        self._fetched = {key: task for key, task in self._fetched.items() if key[0] != name}
