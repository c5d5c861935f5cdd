"""What a rank that follows needs to hand its own KV heads to, or take them from, another worker's
rank of the same number. Rank 0 chooses where: in every rank's arena the places are the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import torch


class Kind(IntEnum):
    """How the other rank gets at a tensor."""

    HOST = 0  # in memory that both share
    DEVICE = 1  # in a GPU's
    NETWORK = 2  # it reads memory over the network
    SOCKET = 3  # it asks for it, over sockets of theirs


FETCHED = frozenset({Kind.NETWORK, Kind.SOCKET})
"""Not there to read at once: expect() comes before take()."""


@dataclass(frozen=True, slots=True)
class Place:
    """Of a tensor in a rank's arena, or that it keeps under the number `slot`."""

    slot: int
    offset: int
    num_bytes: int
    kind: Kind


class Ends(Protocol):
    """One rank's. Every task is answered once nothing reads or writes for it any more."""

    def meet(self, peer: int, member: bytes) -> None:
        """A worker that is called by this number from now on. b"": it is gone."""

    def lend(self, task: int, peer: int, place: Place, kv: torch.Tensor) -> None:
        """Put it where the peer's rank gets at it."""

    def withdraw(self, number: int) -> None:
        """What is kept under this number is not lent any more."""

    def wipe(self, offset: int) -> None:
        """What begins there in memory of the host may be overwritten."""

    def expect(self, task: int, peer: int, place: Place, like: torch.Tensor) -> None:
        """Fetch what the peer's rank lends, of this shape and dtype. The task is answered when
        take() can say what came, or why nothing did."""

    def take(
        self,
        task: int,
        peer: int,
        place: Place,
        like: torch.Tensor,
        use: Callable[[torch.Tensor], object],
    ) -> None:
        """`use` what the peer's rank lends, of the shape and dtype of `like`."""

    def discard(self, peer: int, slot: int) -> None:
        """What was expected is not taken."""
