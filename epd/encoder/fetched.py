"""How many bytes are fetched: for each request, and at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from epd.errors import TooLarge
from epd.types import ItemKey

_MOST_REQUESTS = 4096


class FetchedBytes:
    """Counts an item once, however often it is fetched. Requests long gone are forgotten."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._sizes: dict[str, dict[int, int]] = {}  # by request and item, the oldest first

    def add(self, item: ItemKey, num_bytes: int) -> None:
        """TooLarge when the items of the request are more than the limit together."""
        sizes = self._sizes.pop(item.request_id, {})
        self._sizes[item.request_id] = sizes
        sizes[item.index] = num_bytes
        if len(self._sizes) > _MOST_REQUESTS:
            del self._sizes[next(iter(self._sizes))]
        if sum(sizes.values()) > self._most:
            raise TooLarge(f"the files of this request are larger than {self._most} bytes together")


class FetchRoom:
    """Memory for files that are being fetched or wait to be decoded. Any thread.

    A file has its largest size until it is here. One that is larger than everything goes alone.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._changed = threading.Condition()
        self.num_bytes = 0

    @contextmanager
    def reserve(self, most: int) -> Iterator[Callable[[int], None]]:
        """Waits for room; call what comes with the true size. Given back at the end."""
        with self._changed:
            self._changed.wait_for(
                lambda: not self.num_bytes or self.num_bytes + most <= self._capacity
            )
            self.num_bytes += most
        held = most

        def settle(num_bytes: int) -> None:
            nonlocal held
            with self._changed:
                self.num_bytes += num_bytes - held
                held = num_bytes
                self._changed.notify_all()

        try:
            yield settle
        finally:
            settle(0)
