"""How much was fetched for each request. Pure."""

from __future__ import annotations

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
