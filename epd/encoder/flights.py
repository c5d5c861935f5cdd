"""Equal items that are on their way at the same time share one way. Pure.

The first item of a key leads: its bytes are decoded and encoded, under its name, also after it has
left, as long as others follow. What a follower came with is kept until the layout is known: should
the leader fail before, each of the others starts anew.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from epd.types import ItemKey

K = TypeVar("K", bound=Hashable)
J = TypeVar("J")
P = TypeVar("P")


@dataclass(slots=True, eq=False)
class Flight(Generic[K, J, P]):
    """One key on its way. `members` has what each item came with, until `prepared` is there.

    `on_record` are those whose layout was said, some of which may have left since.
    """

    key: K
    leader: ItemKey
    members: dict[ItemKey, J | None] = field(default_factory=dict)
    prepared: P | None = None
    on_record: set[ItemKey] = field(default_factory=set)


class Flights(Generic[K, J, P]):
    """An item is a member of one flight at most; a flight has members or it is over."""

    def __init__(self) -> None:
        self._by_key: dict[K, Flight[K, J, P]] = {}
        self._by_leader: dict[ItemKey, Flight[K, J, P]] = {}
        self._of: dict[ItemKey, Flight[K, J, P]] = {}

    @property
    def num_followers(self) -> int:
        """Items that share the way of another."""
        return len(self._of) - len(self._by_key)

    def join(self, item: ItemKey, key: K, job: J) -> Flight[K, J, P]:
        """The flight of this key, which the item leads if there was none."""
        flight = self._by_key.get(key)
        if flight is None:
            flight = Flight(key, item)
            self._by_key[key] = self._by_leader[item] = flight
        flight.members[item] = job if flight.prepared is None else None
        self._of[item] = flight
        return flight

    def of_key(self, key: K) -> Flight[K, J, P] | None:
        """The flight of this key."""
        return self._by_key.get(key)

    def of(self, item: ItemKey) -> Flight[K, J, P] | None:
        """The flight that the item is a member of."""
        return self._of.get(item)

    def led_by(self, leader: ItemKey) -> Flight[K, J, P] | None:
        """The flight under this name, whether its leader is still a member or not."""
        return self._by_leader.get(leader)

    def prepared(self, flight: Flight[K, J, P], prepared: P) -> tuple[ItemKey, ...]:
        """The layout is known to these items: nobody will start anew."""
        flight.prepared = prepared
        flight.members = dict.fromkeys(flight.members)
        return tuple(flight.members)

    def leave(self, item: ItemKey) -> Flight[K, J, P] | None:
        """The item is wanted no more. Its flight, if that is over with it."""
        flight = self._of.pop(item, None)
        if flight is None:
            return None
        del flight.members[item]
        if flight.members:
            return None
        self._forget(flight)
        return flight

    def end(self, leader: ItemKey) -> Flight[K, J, P] | None:
        """It arrived, or failed: the flight with its members, which are in none now."""
        flight = self._by_leader.get(leader)
        if flight is not None:
            for item in flight.members:
                del self._of[item]
            self._forget(flight)
        return flight

    def check(self) -> None:
        """Assert what must hold between any two calls."""
        assert set(self._by_leader.values()) == set(self._by_key.values())
        for flight in self._by_key.values():
            assert flight.members
            assert all(self._of[item] is flight for item in flight.members)
        assert sum(len(flight.members) for flight in self._by_key.values()) == len(self._of)

    def _forget(self, flight: Flight[K, J, P]) -> None:
        del self._by_key[flight.key]
        del self._by_leader[flight.leader]
