"""What one gateway keeps of each tenant for a while, within bounds. Pure: time comes in."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

OVERHEAD = 512
"""Bytes that an entry takes beside its own."""

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class _Kept(Generic[V]):
    value: V
    num_bytes: int
    ends: float


class Shelf(Generic[V]):
    """Values by tenant and name. What was not used for longest goes first.

    A tenant has `tenant_bytes` at most, all together `most_bytes` (`num_bytes` says how much is
    taken), and nothing is kept for longer than `seconds` after it was put here last.
    """

    def __init__(self, *, most_bytes: int, tenant_bytes: int, seconds: float) -> None:
        self._most_bytes = most_bytes
        self._tenant_bytes = tenant_bytes
        self._seconds = seconds
        self._kept: OrderedDict[tuple[str, str], _Kept[V]] = OrderedDict()
        self._names: dict[str, OrderedDict[str, None]] = {}
        self._num_bytes: dict[str, int] = {}
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, tenant: str, name: str, now: float) -> V | None:
        """What the tenant has under this name, unless that was forgotten."""
        kept = self._kept.get((tenant, name))
        if kept is None:
            return None
        if kept.ends <= now:
            self.drop(tenant, name)
            return None
        self._kept.move_to_end((tenant, name))
        self._names[tenant].move_to_end(name)
        return kept.value

    def put(self, tenant: str, name: str, value: V, num_bytes: int, now: float) -> bool:
        """In place of what had its name. False: it is too large for all the room there is."""
        self._expire(now)
        self.drop(tenant, name)
        num_bytes += OVERHEAD + len(tenant) + len(name)
        if num_bytes > min(self._tenant_bytes, self._most_bytes):
            return False
        while self._num_bytes.get(tenant, 0) + num_bytes > self._tenant_bytes:
            self.drop(tenant, next(iter(self._names[tenant])))
        while self.num_bytes + num_bytes > self._most_bytes:
            self.drop(*next(iter(self._kept)))
        self._kept[tenant, name] = _Kept(value, num_bytes, now + self._seconds)
        self._names.setdefault(tenant, OrderedDict())[name] = None
        self._num_bytes[tenant] = self._num_bytes.get(tenant, 0) + num_bytes
        self.num_bytes += num_bytes
        return True

    def drop(self, tenant: str, name: str) -> None:
        """Forget it. Harmless where it is not known."""
        kept = self._kept.pop((tenant, name), None)
        if kept is None:
            return
        del self._names[tenant][name]
        self._num_bytes[tenant] -= kept.num_bytes
        self.num_bytes -= kept.num_bytes
        if not self._names[tenant]:
            del self._names[tenant], self._num_bytes[tenant]

    def _expire(self, now: float) -> None:
        """Those used last may have ended before others: they end when they are looked for."""
        while self._kept:
            key = next(iter(self._kept))
            if self._kept[key].ends > now:
                return
            self.drop(*key)
