"""Tables of the sampler: device tensors with a row per request that wants one."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from epd.attention.staging import put

_LEAST = 8


def fit(values: torch.Tensor, rows: int, width: int) -> torch.Tensor:
    """`values`, or where it has not so many rows and columns, a larger copy filled with zeros."""
    old = values.shape
    if rows <= old[0] and width <= old[1]:
        return values
    grown = values.new_zeros(_doubled(old[0], rows), _doubled(old[1], width))
    grown[: old[0], : old[1]] = values
    return grown


def _doubled(size: int, least: int) -> int:
    """Never less than before, and at least twice as much where it has to grow."""
    return size if least <= size else max(2 * size, least, _LEAST)


class Seats:
    """Numbers from 0, the smallest possible, each with one holder at a time."""

    def __init__(self) -> None:
        self._free: list[int] = []
        self._num = 0

    @property
    def num_taken(self) -> int:
        """How many somebody holds."""
        return self._num - len(self._free)

    def take(self) -> int:
        """A free number."""
        if self._free:
            return self._free.pop()
        self._num += 1
        return self._num - 1

    def give_back(self, seat: int) -> None:
        """It may be taken again."""
        self._free.append(seat)


class IdLists:
    """Growing lists of token ids on a device, one per row; their lengths are known on the host."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._ids = torch.zeros(0, 0, dtype=torch.int64, device=device)
        self._lengths = torch.zeros(0, 1, dtype=torch.int64)

    def set(self, row: int, ids: Sequence[int]) -> None:
        """Start the list of a row anew."""
        self._ids = fit(self._ids, row + 1, max(1, len(ids)))
        self._lengths = fit(self._lengths, row + 1, 1)
        self._ids[row, : len(ids)] = put(torch.tensor(ids, dtype=torch.int64), self._device)
        self._lengths[row] = len(ids)

    def get(self, rows: torch.Tensor) -> torch.Tensor:
        """[M] rows, on the host -> [M, length of the longest]. Shorter ones repeat their first id.

        An empty one, which has none, repeats whatever id was there before.
        """
        lengths = self._lengths[rows, 0]
        most = max(1, int(lengths.max()))
        at, ends = put(torch.stack([rows, lengths]), self._device)[:, :, None]
        ids = self._ids[at[:, 0], :most]
        return torch.where(torch.arange(most, device=self._device) < ends, ids, ids[:, :1])

    def append(self, rows: torch.Tensor, ids: torch.Tensor) -> None:
        """One id each, on the device, for distinct rows, on the host."""
        ends = self._lengths[rows, 0]
        self._ids = fit(self._ids, 0, int(ends.max()) + 1)
        at, places = put(torch.stack([rows, ends]), self._device)
        self._ids[at, places] = ids
        self._lengths[rows, 0] += 1
