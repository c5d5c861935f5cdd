"""What makes a dataclass a message: a stable tag under which it is registered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

PROTOCOL_VERSION = 1

REGISTRY: dict[str, type[Any]] = {}

T = TypeVar("T")


def message(tag: str) -> Callable[[type[T]], type[T]]:
    """Register a frozen dataclass under a stable tag. A tag is never reused for another meaning."""

    def register(cls: type[T]) -> type[T]:
        assert tag not in REGISTRY, tag
        REGISTRY[tag] = cls
        cls.TAG = tag  # type: ignore[attr-defined]
        return cls

    return register


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """Where the bytes of a bulk message are, and what they are.

    `slot` < 0: in the one raw frame after the message. Otherwise in the sender's shared-memory
    arena (its `Member.segment`) at `offset`, to be given back with `slot` once nobody reads there.
    `kept_at` >= 0: the sender keeps the slot, which begins there, also without us. `device`: the
    arena is the one in the memory of the sender's GPU (its `Member.gpu`). `remote`: the receiver is
    on another host and reads the arena over the network (the sender's `Member.remote`). `ranks`:
    each of so many ranks of the sender has the like at the same place of its own arena, for the
    receiver's rank of the same number (the sender's `Member.ranks`). `parts` >= 0: they have no
    arena, and keep it under this number, which is to be given back, until they are asked for it.
    """

    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    slot: int = -1
    offset: int = 0
    kept_at: int = -1
    device: bool = False
    remote: bool = False
    ranks: int = 1
    parts: int = -1

    @property
    def lent(self) -> bool:
        """A slot that is to be given back."""
        return self.slot >= 0

    @property
    def number(self) -> int:
        """By which it is given back; < 0: nothing is."""
        return max(self.slot, self.parts)

    @property
    def kept(self) -> bool:
        """A slot that no other bytes wait for: it may be read for long."""
        return self.kept_at >= 0
