"""What a rank that follows needs to hand its own KV heads to, or take them from, another worker's
rank of the same number. Rank 0 chooses where: in every rank's arena the places are the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True, slots=True)
class Place:
    """Of a tensor in a rank's arena: the one in its GPU's memory, or in memory of its host."""

    slot: int
    offset: int
    num_bytes: int
    device: bool


class Ends(Protocol):
    """One rank's. Every task is answered once nothing reads or writes for it any more."""

    def meet(self, peer: int, member: bytes) -> None:
        """A worker that is called by this number from now on. b"": it is gone."""

    def lend(self, task: int, kv: torch.Tensor, place: Place) -> None:
        """Put it where the peer's rank reads it."""

    def take(
        self,
        task: int,
        peer: int,
        place: Place,
        like: torch.Tensor,
        use: Callable[[torch.Tensor], object],
    ) -> None:
        """`use` what the peer's rank has put there, of the shape and dtype of `like`."""

    def wipe(self, offset: int) -> None:
        """What begins there in memory of the host may be overwritten."""
