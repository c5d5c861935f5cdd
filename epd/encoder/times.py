"""Where the time of items goes, from their jobs to their rows. Any thread; decides nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

from epd.types import Activity, ItemKey, Origin, Span
from epd.wire.messages import ItemSpans

MOST_ITEMS = 4096
"""Items that are followed; of the oldest beyond these nothing is said."""


@dataclass(slots=True)
class _Times:
    came: float
    num_bytes: int = 0
    batch_items: int = 0
    origin: Origin | None = None
    spans: dict[Activity, tuple[float, float]] = field(default_factory=dict)


class ItemTimes:
    """Activities of each item in seconds; what none of them accounts for, it spent in queues."""

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._items: dict[ItemKey, _Times] = {}

    def came(self, item: ItemKey) -> None:
        """Its job is here."""
        with self._lock:
            self._items[item] = _Times(self._clock())
            if len(self._items) > MOST_ITEMS:
                del self._items[next(iter(self._items))]

    def sized(self, item: ItemKey, num_bytes: int) -> None:
        """Its files are here."""
        with self._lock:
            if item in self._items:
                self._items[item].num_bytes = num_bytes

    @contextmanager
    def measure(self, item: ItemKey, activity: Activity) -> Iterator[None]:
        """What is done inside is this activity of the item."""
        began = self._clock()
        try:
            yield
        finally:
            self._add(item, activity, began)

    def _add(self, item: ItemKey, activity: Activity, began: float) -> None:
        with self._lock:
            times = self._items.get(item)
            if times is not None:
                first, seconds = times.spans.get(activity, (began, 0.0))
                times.spans[activity] = first, seconds + self._clock() - began

    def known(self, item: ItemKey) -> None:
        """Its rows were there before it came."""
        with self._lock:
            if item in self._items:
                self._items[item].origin = Origin.CACHE

    def encoded(
        self,
        leader: ItemKey,
        items: Iterable[ItemKey],
        *,
        seconds: float,
        ended: float,
        batch_items: int,
    ) -> None:
        """A tower forward that ended then gave rows to its leader and to all who followed it."""
        with self._lock:
            if leader in self._items:
                self._items[leader].spans[Activity.ENCODE] = ended - seconds, seconds
            for item in items:
                if (times := self._items.get(item)) is not None:
                    times.origin = Origin.TOWER if item == leader else Origin.SHARED
                    times.batch_items = batch_items if item == leader else 0

    def so_far(self, item: ItemKey) -> ItemSpans | None:
        """What the gateway is to be told now."""
        now = self._clock()
        with self._lock:
            times = self._items.get(item)
            return None if times is None else _told(item, times, now)

    def end(self, item: ItemKey) -> ItemSpans | None:
        """The same for the last time."""
        told = self.so_far(item)
        with self._lock:
            self._items.pop(item, None)
        return told

    def __len__(self) -> int:
        return len(self._items)


def _told(item: ItemKey, times: _Times, now: float) -> ItemSpans:
    spans = [_span(activity, *span, now) for activity, span in times.spans.items()]
    busy = sum(seconds for _, seconds in times.spans.values())
    queue = _span(Activity.QUEUE, times.came, max(0.0, now - times.came - busy), now)
    return ItemSpans(
        item=item,
        origin=times.origin,
        num_bytes=times.num_bytes,
        batch_items=times.batch_items,
        spans=(queue, *spans),
    )


def _span(activity: Activity, began: float, seconds: float, now: float) -> Span:
    return Span(activity=activity, ago_ms=1000 * (now - began), ms=1000 * seconds)
