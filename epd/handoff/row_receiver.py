"""The prefill side of E->P: which rows to pull next, within a quota of bytes.

Credits go to admitted requests only, oldest first, in prompt order, so the request that can move on
always gets its rows; an item larger than the quota streams through it. A row counts against the
quota from the pull until its token is prefilled. Rows of tokens whose KV is cached are not pulled
and do not count; an encoder that owes none is never spoken to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from epd.handoff.instructions import Instruction, Send
from epd.handoff.spans import Spans
from epd.types import ItemKey, Prompt, RequestKey
from epd.wire.messages import EmbeddingData, ItemMoved, PullRows, ReleaseRows, RowsLost


@dataclass(slots=True)
class _Item:
    """One item: rows [first, asked) have been asked for, those before `first` are not needed."""

    key: ItemKey
    encoder: str
    num_rows: int
    row_bytes: int
    first: int
    asked: int
    landed: Spans = field(default_factory=Spans)
    lost: bool = False

    @property
    def complete(self) -> bool:
        return self.landed.count == self.num_rows - self.first

    def may_become(self, key: ItemKey) -> bool:
        """Later attempts replace earlier ones; this one only where it was not to be had yet."""
        known = self.key.attempt if self.encoder else self.key.attempt - 1
        return key.attempt > known


@dataclass(slots=True)
class _Request:
    gateway: str
    items: list[_Item]
    consumed: int = 0

    @property
    def held_bytes(self) -> int:
        """Bytes asked for and not yet consumed."""
        held, consumed = 0, self.consumed
        for item in self.items:
            used = min(consumed, item.num_rows)
            consumed -= used
            held += max(0, item.asked - max(used, item.first)) * item.row_bytes
        return held


class RowReceiver:
    """Owner of the row quota of this prefill worker."""

    def __init__(self, quota_bytes: int, part_bytes: int) -> None:
        self._quota = quota_bytes
        self._part = part_bytes
        self._requests: dict[RequestKey, _Request] = {}

    def admitted(
        self,
        gateway: str,
        request: RequestKey,
        prompt: Prompt,
        row_bytes: Sequence[int],
        first_rows: Sequence[int],
    ) -> list[Instruction]:
        """A request was admitted.

        `row_bytes[k]` is the size of one row of its k-th item, `first_rows[k]` the first row of it
        that is needed: its number of rows where none is.
        """
        items = [
            _Item(part.item, part.encoder, part.layout.num_rows, size, first, first)
            for part, size, first in zip(prompt.items, row_bytes, first_rows, strict=True)
        ]
        for item in items:
            item.lost = not item.encoder
        self._requests[request] = _Request(gateway, items)
        return self._grant()

    def landed(self, peer: str, part: EmbeddingData) -> bool:
        """A part arrived. False: not asked for, late or repeated; its bytes are to be dropped."""
        item = self._find(part.request, part.item)
        if item is None or item.encoder != peer or part.num_rows < 1:
            return False
        end = part.first_row + part.num_rows
        if not item.first <= part.first_row < end <= item.asked:
            return False
        if item.landed.overlaps(part.first_row, end):
            return False
        item.landed.add(part.first_row, end)
        return True

    def settled(self, part: EmbeddingData) -> list[Instruction]:
        """The part was merged: an item that is complete is released at its encoder."""
        item = self._find(part.request, part.item)
        if item is None or not item.complete:
            return []
        return [Send(item.encoder, ReleaseRows(request=part.request, item=item.key))]

    def consumed(self, request: RequestKey, num_rows: int) -> list[Instruction]:
        """The first `num_rows` rows of the request, the not needed included, were prefilled."""
        state = self._requests.get(request)
        if state is None or num_rows <= state.consumed:
            return []
        state.consumed = num_rows
        return self._grant()

    def lost(self, peer: str, message: RowsLost) -> list[Instruction]:
        """An encoder has not got the rows (any more): the gateway must find them again."""
        item = self._find(message.request, message.item)
        if item is None or item.encoder != peer or item.lost or item.complete:
            return []
        item.lost = True
        return [Send(self._requests[message.request].gateway, message)]

    def moved(self, message: ItemMoved) -> list[Instruction]:
        """The gateway found them: ask the new encoder for what was asked and has not landed."""
        item = self._indexed(message.request, message.item.index)
        if item is None or item.complete or not item.may_become(message.item):
            return []
        item.key, item.encoder, item.lost = message.item, message.encoder, False
        holes = item.landed.missing(item.first, item.asked)
        pulls = [self._pull(message.request, item, a, b) for a, b in holes]
        return [*pulls, *self._grant()]

    def ended(self, request: RequestKey) -> list[Instruction]:
        """The request needs no rows any more, whatever the reason."""
        state = self._requests.pop(request, None)
        if state is None:
            return []
        left: list[Instruction] = [
            Send(item.encoder, ReleaseRows(request=request, item=item.key))
            for item in state.items
            if item.asked > item.first and not item.lost and not item.complete
        ]
        return [*left, *self._grant()]

    def peer_lost(self, peer: str) -> list[Instruction]:
        """An encoder died: every item it still owed is lost."""
        found: list[Instruction] = []
        for request, state in self._requests.items():
            for item in state.items:
                if item.encoder == peer and not item.complete:
                    lost = RowsLost(request=request, item=item.key, reason=f"{peer} died")
                    found += self.lost(peer, lost)
        return found

    def _grant(self) -> list[Instruction]:
        """Pull in order while the quota lasts; one row always fits when nothing is held."""
        held = self.held_bytes
        pulls: list[Instruction] = []
        for request, state in self._requests.items():
            for item in state.items:
                while item.asked < item.num_rows:
                    room = max(self._quota - held, item.row_bytes if held == 0 else 0)
                    fit = min(room, max(self._part, item.row_bytes)) // item.row_bytes
                    if fit == 0:
                        return pulls
                    end = min(item.num_rows, item.asked + fit)
                    if not item.lost:
                        pulls.append(self._pull(request, item, item.asked, end))
                    held += (end - item.asked) * item.row_bytes
                    item.asked = end
        return pulls

    @staticmethod
    def _pull(request: RequestKey, item: _Item, start: int, end: int) -> Send:
        pull = PullRows(request=request, item=item.key, first_row=start, num_rows=end - start)
        return Send(item.encoder, pull)

    def _find(self, request: RequestKey, key: ItemKey) -> _Item | None:
        item = self._indexed(request, key.index)
        return item if item is not None and item.key == key else None

    def _indexed(self, request: RequestKey, index: int) -> _Item | None:
        state = self._requests.get(request)
        return state.items[index] if state and 0 <= index < len(state.items) else None

    def holds(self, num_bytes: int) -> bool:
        """Could so many bytes of one request be here at once? Else none may be waited for."""
        return num_bytes <= self._quota

    @property
    def held_bytes(self) -> int:
        """Bytes of quota in use."""
        return sum(state.held_bytes for state in self._requests.values())

    @property
    def quota_bytes(self) -> int:
        """Bytes of quota in all."""
        return self._quota

    @property
    def num_requests(self) -> int:
        """Requests that may still pull."""
        return len(self._requests)


def first_rows(prompt: Prompt, token: int) -> list[int]:
    """Of each item, how many rows the first `token` tokens of the prompt take."""
    return [
        sum(max(0, min(end, token - offset) - start) for start, end in item.layout.row_spans)
        for offset, item in zip(prompt.offsets, prompt.items, strict=True)
    ]
