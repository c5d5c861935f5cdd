"""What is known of every item: expected, on its way, held back, kept. Pure.

Puts together the rows that are kept, the items that share one way, and those that wait between
preprocessing and towers, so that their rules meet in one place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from epd.deadlines import Deadlines
from epd.encoder.cache import Cache
from epd.encoder.flights import Flights
from epd.encoder.prepared import PreparedItems
from epd.encoder.rows import RowStore
from epd.types import ItemKey, ItemLayout, Modality

P = TypeVar("P")
R = TypeVar("R")
J = TypeVar("J")

Key = tuple[bytes, str]
"""What a layout depends on: the content key, and the text before the item."""

Ready = list[tuple[ItemKey, P]]
"""What the towers may have now, each under the name of its leader."""


@dataclass(frozen=True, slots=True)
class Known(Generic[R]):
    """Rows that were there before the item came."""

    layout: ItemLayout
    rows: R
    nbytes: int


@dataclass(frozen=True, slots=True)
class Work:
    """What an item is, and what it may take."""

    modality: Modality
    cost: int


class Ledger(Generic[P, R, J]):
    """P: a prepared item, R: rows, J: what an item came with. Sizes are told."""

    def __init__(self, *, rows_bytes: int, cache_bytes: int, prepared_bytes: int) -> None:
        self.store: RowStore[R] = RowStore(rows_bytes)
        self.cache: Cache[Key, Known[R]] = Cache(cache_bytes)
        self._flights: Flights[Key, J, P] = Flights()
        self._prepared: PreparedItems[P] = PreparedItems(prepared_bytes)
        self._early: dict[ItemKey, Known[R]] = {}
        self._work: dict[ItemKey, Work] = {}  # of those whose rows are still to come
        self._deadlines: Deadlines[ItemKey] = Deadlines()
        self.work_done = 0

    # ---- items come and go

    def expect(self, item: ItemKey, work: Work, *, pinned: bool, hold: bool) -> bool:
        """Announce an item. False for one that was dropped, is expected or has its rows."""
        if not self.store.expect(item, pinned=pinned):
            return False
        self._work[item] = work
        if hold:
            self._prepared.hold(item)
        return True

    def ends(self, item: ItemKey, remaining_ms: int, now: float) -> None:
        """Nobody waits for an expected item after this; 0: it may take for ever."""
        self._deadlines.set(item, remaining_ms, now)

    def wants(self, item: ItemKey, now: float) -> bool:
        """Whether work under its name is of use: for itself, or for those that follow it."""
        flight = self._flights.led_by(item)
        of_use = (item,) if flight is None else tuple(flight.members)
        return any(self.store.expects(i) and not self._deadlines.passed(i, now) for i in of_use)

    def expire(self, now: float) -> list[tuple[ItemKey, Modality]]:
        """Items that nobody waits for any more. They are to be dropped."""
        return [(item, self._work[item].modality) for item in self._deadlines.expire(now)]

    @property
    def num_requests(self) -> int:
        """With items that are still to be encoded."""
        return len({item.request_id for item in self._work})

    @property
    def queued_cost(self) -> int:
        """Of all that is still to be encoded."""
        return sum(work.cost for work in self._work.values())

    def fail(self, item: ItemKey) -> None:
        """An item that is on no way gets no rows."""
        self.store.fail(item)
        self._early.pop(item, None)
        self._prepared.unhold(item)
        self._settle(item)

    def _settle(self, item: ItemKey) -> Work | None:
        """It takes nothing more."""
        self._deadlines.forget(item)
        return self._work.pop(item, None)

    def drop(self, item: ItemKey) -> ItemKey | None:
        """Its consumer is gone. The leader of a way that nobody goes any more: end that work."""
        self.store.drop(item)
        self._early.pop(item, None)
        self._prepared.unhold(item)
        self._settle(item)
        over = self._flights.leave(item)
        if over is None:
            return None
        self._prepared.end(over.leader)
        return over.leader

    # ---- from its bytes to its layout

    def known(self, key: Key) -> Known[R] | None:
        """Rows of an equal item."""
        return self.cache.get(key)

    def twin(self, key: Key) -> J | None:
        """What an equal item came with, that is on its way and has no layout yet."""
        flight = self._flights.of_key(key)
        return None if flight is None else next(filter(None, flight.members.values()), None)

    def join(self, item: ItemKey, key: Key, job: J) -> tuple[bool, P | None]:
        """Whether the item leads; a follower may find that its leader is prepared already."""
        flight = self._flights.join(item, key, job)
        if flight.leader != item and item in self._work:
            self._work[item] = replace(self._work[item], cost=0)
        return flight.leader == item, flight.prepared

    def prepared(self, leader: ItemKey, prepared: P, size: int) -> tuple[ItemKey, ...]:
        """It takes memory from now on. Those whose layout this is; none: it is not needed."""
        flight = self._flights.led_by(leader)
        if flight is None:
            return ()
        self._prepared.prepared(leader, size)
        return self._flights.prepared(flight, prepared)

    def unprepared(self, item: ItemKey) -> list[J]:
        """It cannot be prepared. What those who followed it came with: they start anew."""
        flight = self._flights.end(item)
        self.fail(item)
        if flight is None:
            return []
        return [job for other, job in flight.members.items() if job is not None and other != item]

    # ---- from its layout to its rows

    def take_off(self, item: ItemKey, prepared: P) -> Ready[P]:
        """A member's layout is on record. The first to say so queues it for all, or holds it."""
        flight = self._flights.of(item)
        if flight is None:
            return []
        held = self._prepared.is_to_hold(item)
        first = not flight.on_record
        flight.on_record.add(item)
        if not held:
            self._prepared.unhold(flight.leader)
        elif first:
            self._prepared.hold(flight.leader)
        if first:
            return self._prepared.take(flight.leader, prepared)
        return [] if held else self._prepared.run(flight.leader)

    def run(self, item: ItemKey) -> Ready[P]:
        """Somebody needs its rows: it is held no longer."""
        flight = self._flights.of(item)
        self._prepared.unhold(item)
        return [] if flight is None else self._prepared.run(flight.leader)

    def early(self, item: ItemKey) -> Known[R] | None:
        """Rows that were there before its layout was on record, which it is now."""
        return self._early.pop(item, None)

    def land(self, leader: ItemKey, known: Known[R]) -> list[ItemKey]:
        """The rows are there: for whose layout is on record, at once; and for who comes later."""
        self._prepared.end(leader)
        flight = self._flights.end(leader)
        if flight is None:
            return []
        self.cache.put(flight.key, known, known.nbytes)
        self.work_done += self._work[leader].cost if leader in self._work else 0
        landed = [item for item in flight.members if item in flight.on_record]
        for item in landed:
            self.keep(item, known)
        self._early |= dict.fromkeys(flight.members.keys() - flight.on_record, known)
        return landed

    def keep(self, item: ItemKey, known: Known[R]) -> None:
        """An item has its rows."""
        self._prepared.unhold(item)
        self._settle(item)
        self.store.put(item, known.rows, known.nbytes)

    def crash(self, leader: ItemKey) -> tuple[ItemKey, ...]:
        """Its tower failed, and so did all who waited for it."""
        self._prepared.end(leader)
        flight = self._flights.end(leader)
        members = () if flight is None else tuple(flight.members)
        for item in members:
            self.fail(item)
        return members

    # ---- how much there is

    @property
    def full(self) -> bool:
        """Nothing more should be prepared now."""
        return self._prepared.full

    def gauges(self) -> dict[str, int]:
        """What is held."""
        return {
            "rows_bytes": self.store.num_bytes,
            "pinned_items": self.store.num_pinned,
            "queued_items": self.store.num_expected,
            "held_items": self._prepared.num_held,
            "prepared_bytes": self._prepared.num_bytes,
            "followers": self._flights.num_followers,
            "early_items": len(self._early),
            "queued_cost": self.queued_cost,
            "cache_bytes": self.cache.num_bytes,
            "cache_most_bytes": self.cache.capacity,
            "cache_hits": self.cache.hits,
            "cache_misses": self.cache.misses,
        }

    def check(self) -> None:
        """Assert what must hold between any two calls."""
        self.store.check()
        self.cache.check()
        self._flights.check()
        assert all(self.store.expects(item) for item in self._early)
        assert all(self.store.expects(item) for item in self._work)
        assert len(self._deadlines) <= len(self._work)
