"""The encode side of E->P: who waits for which rows, and which rows must be kept.

Rows that nobody asked for are evictable cache. A pull pins its item until its attempt releases it,
its puller dies, or the item is dropped; who has not got its rows by then is told.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from epd.handoff.instructions import DropSends, Instruction, Pin, Send, SendRows, Unpin
from epd.handoff.tombstones import Tombstones
from epd.types import ItemKey, RequestKey
from epd.wire.messages import PullRows, ReleaseRows, RowsLost


@dataclass(slots=True)
class _Item:
    owner: str
    num_rows: int | None = None
    waiting: list[tuple[str, PullRows]] = field(default_factory=list)
    pullers: set[tuple[str, RequestKey]] = field(default_factory=set)

    @property
    def askers(self) -> set[tuple[str, RequestKey]]:
        """Everybody who wants rows, those that are there or those to come."""
        return self.pullers | {(peer, pull.request) for peer, pull in self.waiting}


class RowSender:
    """Owner of the pulls on this encode worker."""

    def __init__(self) -> None:
        self._items: dict[ItemKey, _Item] = {}
        self._ended = Tombstones()

    def expect(self, owner: str, item: ItemKey) -> bool:
        """The gateway `owner` sent a job. False: it was dropped before, or is here already."""
        if item in self._ended or item in self._items:
            return False
        self._items[item] = _Item(owner)
        return True

    def encoded(self, item: ItemKey, num_rows: int) -> list[Instruction]:
        """The tower made the rows."""
        state = self._items.get(item)
        if state is None:
            return []
        state.num_rows = num_rows
        waiting, state.waiting = state.waiting, []
        return [i for peer, pull in waiting for i in self._serve(peer, pull, state)]

    def gone(self, item: ItemKey, reason: str) -> list[Instruction]:
        """The rows were evicted, or could not be made."""
        state = self._items.pop(item, None)
        if state is None:
            return []
        self._ended.add(item)
        return [Send(peer, _lost(pull, reason)) for peer, pull in state.waiting]

    def pull(self, peer: str, pull: PullRows) -> list[Instruction]:
        """A prefill worker asks for rows."""
        state = self._items.get(pull.item)
        if state is None:
            return [Send(peer, _lost(pull, "not here"))]
        if state.num_rows is None:
            state.waiting.append((peer, pull))
            return []
        return self._serve(peer, pull, state)

    def _serve(self, peer: str, pull: PullRows, state: _Item) -> list[Instruction]:
        assert state.num_rows is not None
        if pull.num_rows < 1 or not 0 <= pull.first_row <= state.num_rows - pull.num_rows:
            return [Send(peer, _lost(pull, f"the item has {state.num_rows} rows"))]
        pinned = [] if state.pullers else [Pin(pull.item)]
        state.pullers.add((peer, pull.request))
        send = SendRows(peer, pull.request, pull.item, pull.first_row, pull.num_rows)
        return [*pinned, send]

    def release(self, peer: str, message: ReleaseRows) -> list[Instruction]:
        """An attempt on a prefill worker has what it needs, or ended."""
        return self._let_go(message.item, {(peer, message.request)})

    def _let_go(self, item: ItemKey, gone: set[tuple[str, RequestKey]]) -> list[Instruction]:
        state = self._items.get(item)
        if state is None:
            return []
        state.waiting = [(to, pull) for to, pull in state.waiting if (to, pull.request) not in gone]
        if not state.pullers & gone:
            return []
        state.pullers -= gone
        return [] if state.pullers else [DropSends(item), Unpin(item)]

    def drop(self, item: ItemKey) -> list[Instruction]:
        """The gateway needs the item no more; also when it never arrived."""
        state = self._items.pop(item, None)
        self._ended.add(item)
        if state is None:
            return [DropSends(item)]
        lost = [
            Send(peer, RowsLost(request=request, item=item, reason="dropped"))
            for peer, request in sorted(state.askers)
        ]
        return [DropSends(item), *lost]

    def peer_lost(self, peer: str) -> list[Instruction]:
        """A prefill worker died."""
        told: list[Instruction] = []
        for item, state in self._items.items():
            gone = {(to, request) for to, request in state.askers if to == peer}
            told += self._let_go(item, gone)
        return told

    def held_for(self, owner: str) -> tuple[ItemKey, ...]:
        """The items that this gateway answers for; when it dies, they are to be dropped."""
        return tuple(item for item, state in self._items.items() if state.owner == owner)

    @property
    def num_items(self) -> int:
        """Items known, waiting or encoded."""
        return len(self._items)


def _lost(pull: PullRows, reason: str) -> RowsLost:
    return RowsLost(request=pull.request, item=pull.item, reason=reason)
