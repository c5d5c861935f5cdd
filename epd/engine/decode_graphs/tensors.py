"""What recorded decode steps read, in tensors that stay: the same on every rank."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from epd.attention import SingleTokens
from epd.attention.staging import Staging
from epd.engine.decode_graphs.buckets import Buckets
from epd.engine.kv.cache import KvCache


class StepTensors:
    """Rotary positions, lengths and block tables of the largest batch that is recorded."""

    def __init__(self, buckets: Buckets, staging: Staging, device: torch.device) -> None:
        most = buckets.sizes[-1]
        self._staging = staging
        self._positions = torch.zeros(most, dtype=torch.float64, device=device)
        self._lengths = torch.zeros(most, dtype=torch.int32, device=device)
        self._tables = torch.zeros(most, buckets.most_blocks, dtype=torch.int32, device=device)

    def fill(
        self,
        size: int,
        positions: torch.Tensor,
        lengths: Sequence[int],
        blocks: Sequence[Sequence[int]],
        *more: torch.Tensor,
    ) -> Sequence[torch.Tensor]:
        """For a step of n sequences in a batch of `size`; `more` comes back on the device.

        `positions` [n] float64, `more` too on the CPU.
        """
        num, width = len(lengths), max(map(len, blocks))
        tables = [[*table, *([0] * (width - len(table)))] for table in blocks]
        parts = [
            positions,
            torch.tensor([*lengths, *([0] * (size - num))], dtype=torch.int32),
            torch.tensor(tables, dtype=torch.int32),
            *more,
        ]
        there, long, table, *others = self._staging.send(parts)
        self._positions[:num].copy_(there)
        self._lengths[:size].copy_(long)
        self._tables[:num, :width].copy_(table)
        return others

    def positions(self, size: int) -> torch.Tensor:
        """[size] float64."""
        return self._positions[:size]

    def tokens(self, size: int, cache: KvCache) -> SingleTokens:
        """A batch of this size over these pages."""
        tables, lengths = self._tables[:size], self._lengths[:size]
        return SingleTokens(cache.keys, cache.values, cache.block_size, tables, lengths)
