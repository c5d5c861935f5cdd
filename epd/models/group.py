"""The ranks of one worker: processes that each compute a part of every layer, and their sums.

Rank 0 leads. All ranks call the same operations in the same order. No operation pickles: tensors
alone travel, of shapes that both ends know.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import torch
import torch.distributed as dist

LONGEST_WAIT = timedelta(minutes=30)
"""Of one rank for another, while weights are loaded; one that has died is found out at once."""


class Group(Protocol):
    """What a model and an engine need of their ranks. Tensors lie on the rank's own device."""

    @property
    def rank(self) -> int:
        """This process's number; 0 leads."""

    @property
    def size(self) -> int:
        """How many ranks there are."""

    def add_up(self, values: torch.Tensor) -> None:
        """Each rank's values become the sum over all ranks, the same bits everywhere."""

    def share(self, values: torch.Tensor) -> None:
        """Rank 0's values come to all others."""

    def gather(self, part: torch.Tensor) -> list[torch.Tensor]:
        """Every rank's part, of equal shapes, on rank 0; nothing elsewhere."""

    def scatter(self, parts: Sequence[torch.Tensor], into: torch.Tensor) -> None:
        """Rank 0 has a part for each rank, of the shape of `into`; others pass none."""


class Ranks:
    """Ranks that are processes of one machine: NCCL between GPUs, Gloo between CPUs."""

    def __init__(self, rank: int, size: int, meeting: Path, device: str) -> None:
        """Waits for all ranks. `meeting` is a file that only they use. `device` is this rank's."""
        self.rank, self.size = rank, size
        on_gpu = torch.device(device).type == "cuda"
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(name, "lo")  # they would listen on all interfaces
        dist.init_process_group(
            "nccl" if on_gpu else "gloo",
            store=dist.FileStore(str(meeting), size),  # type: ignore[attr-defined]
            rank=rank,
            world_size=size,
            timeout=LONGEST_WAIT,
            device_id=torch.device(device) if on_gpu else None,
        )
        self.add_up(torch.zeros(1, device=device))  # the last time that `meeting` is needed

    def add_up(self, values: torch.Tensor) -> None:
        """See Group."""
        dist.all_reduce(values)

    def share(self, values: torch.Tensor) -> None:
        """See Group."""
        dist.broadcast(values, src=0)

    def gather(self, part: torch.Tensor) -> list[torch.Tensor]:
        """See Group."""
        found = [torch.empty_like(part) for _ in range(self.size)] if self.rank == 0 else None
        dist.gather(part, found, dst=0)
        return found or []

    def scatter(self, parts: Sequence[torch.Tensor], into: torch.Tensor) -> None:
        """See Group."""
        dist.scatter(into, [part.contiguous() for part in parts] or None, src=0)
