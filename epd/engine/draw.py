"""One token per row from its filtered distribution: temperature, top_k, top_p, min_p, then a draw.

Each filter is a floor under the scores, so equal scores stay or go together. The draw walks the
distribution in vocabulary order, not by probability: logits that differ in the last bit between two
batches then move a boundary a little instead of swapping neighbours.

Which way a row goes depends on its own parameters alone, so its result never depends on its batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch

from epd.attention.staging import put
from epd.engine.largest import topk
from epd.engine.randomness import signed, uniforms
from epd.engine.tables import fit
from epd.types import SamplingParams

_MOST_NARROW = 128  # the largest top_k for which only the largest scores are looked at
_CANDIDATES = 2 * _MOST_NARROW  # so many of them: there may be more that equal the k-th
_HEAD = 4096
_BLOCK = 64
_COLDEST = 1e-30  # a smaller temperature would be 0 in float32, and is as good as this one
_LEAST = 1e-300


class _Way(IntEnum):
    """How a row is drawn, from cheap to dear."""

    GREEDY = 0
    NARROW = 1  # a small top_k: among the largest scores
    WIDE = 2  # neither top_k nor top_p: in the whole vocabulary
    ORDERED = 3  # all others: in the whole vocabulary, after sorting it


@dataclass(frozen=True, slots=True)
class _Columns:
    """What M rows are drawn by, [M, 1] each: float64 but for `top_k`; `points` are in (0, 1)."""

    temperature: torch.Tensor
    top_k: torch.Tensor
    top_p: torch.Tensor
    min_p: torch.Tensor
    points: torch.Tensor


class Draws:
    """The sampling parameters of all requests, by slot."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._ways = torch.zeros(0, 1, dtype=torch.int64)  # on the host
        self._floats = torch.zeros(0, 3, dtype=torch.float64, device=device)
        self._ints = torch.zeros(0, 3, dtype=torch.int64, device=device)

    def add(self, slot: int, sampling: SamplingParams, choice: int) -> None:
        """A request takes the slot."""
        self._ways = fit(self._ways, slot + 1, 1)
        self._floats = fit(self._floats, slot + 1, 3)
        self._ints = fit(self._ints, slot + 1, 3)
        self._ways[slot] = _way(sampling)
        floats = [sampling.temperature, sampling.top_p, sampling.min_p]
        ints = [sampling.top_k, signed(sampling.seed), choice]
        self._floats[slot] = put(torch.tensor(floats, dtype=torch.float64), self._device)
        self._ints[slot] = put(torch.tensor(ints, dtype=torch.int64), self._device)

    @property
    def tables(self) -> tuple[torch.Tensor, torch.Tensor]:
        """By slot, on the device: temperature, top_p and min_p; top_k, seed and choice."""
        return self._floats, self._ints

    def any(self, slots: torch.Tensor) -> bool:
        """Whether any of these slots, on the host, wants more than the likeliest."""
        return bool((self._ways[slots] != _Way.GREEDY).any())

    def draw(
        self, scores: torch.Tensor, ids: torch.Tensor, slots: torch.Tensor, index: torch.Tensor
    ) -> torch.Tensor:
        """`ids`, which are those of the best of [N, vocab], but drawn ones where a slot wants it.

        `slots` and the `index` of their next tokens are on the host. In bounds whatever the scores.
        """
        ways = self._ways[slots, 0]
        for way in set(ways.tolist()):
            if way != _Way.GREEDY:
                places = (ways == way).nonzero()[:, 0]
                rows = torch.stack([places, slots[places], index[places]])
                at, slot, indices = put(rows, self._device)
                picked = scores if len(places) == len(slots) else scores[at]
                best = picked.gather(-1, ids[at, None])
                drawn = _draw(way, picked, best, self._columns(slot, indices))
                ids = ids.index_copy(0, at, drawn)
        return ids

    def _columns(self, slots: torch.Tensor, indices: torch.Tensor) -> _Columns:
        temperature, top_p, min_p = self._floats[slots].chunk(3, -1)
        top_k, seeds, choices = self._ints[slots].chunk(3, -1)
        points = uniforms(seeds, choices, indices[:, None])
        return _Columns(temperature, top_k, top_p, min_p, points)


def _way(sampling: SamplingParams) -> _Way:
    if sampling.temperature == 0.0:
        return _Way.GREEDY
    if 0 < sampling.top_k <= _MOST_NARROW:
        return _Way.NARROW
    return _Way.WIDE if sampling.top_k == 0 and sampling.top_p >= 1.0 else _Way.ORDERED


def _draw(way: int, scores: torch.Tensor, best: torch.Tensor, columns: _Columns) -> torch.Tensor:
    """[M, vocab] -> [M] ids, all rows going the same way. `best` [M, 1] are the largest scores."""
    floor = columns.min_p.log().float()
    if way == _Way.NARROW:
        values, ids = topk(scores, min(_CANDIDATES, scores.shape[-1]))
        ordered = _heated(values, best, columns)
        floor = torch.maximum(floor, _floor_from(ordered, ordered, columns)[0])
        ids, order = ids.sort(-1)
        found = _walk(_chances(ordered.gather(-1, order), floor), columns.points)
        return ids.gather(-1, found)[:, 0]
    heated = _heated(scores, best, columns)
    if way == _Way.ORDERED:
        floor = torch.maximum(floor, _floor(heated, columns))
    return _walk(_chances(heated, floor), columns.points)[:, 0]


def _heated(scores: torch.Tensor, best: torch.Tensor, columns: _Columns) -> torch.Tensor:
    """Relative to the best, so that no temperature, however small, can overflow."""
    relative = scores.float() - best.float()
    return relative.div_(columns.temperature.float().clamp(min=_COLDEST))


def _chances(heated: torch.Tensor, floor: torch.Tensor) -> torch.Tensor:
    """Not normalised: the best has 1. 0 below the floor."""
    return torch.where(heated >= floor, heated.exp(), 0.0)


def _floor(heated: torch.Tensor, columns: _Columns) -> torch.Tensor:
    """[M, 1]: the smallest score that top_k and top_p keep."""
    if heated.device.type == "cpu" and heated.shape[-1] > _HEAD:
        # There sorting is slow and looking at a result is free: mostly the largest scores tell.
        floor, known = _floor_from(heated.topk(_HEAD).values, heated, columns)
        if known.all():
            return floor
    return _floor_from(heated.sort(-1, descending=True).values, heated, columns)[0]


def _floor_from(
    ordered: torch.Tensor, heated: torch.Tensor, columns: _Columns
) -> tuple[torch.Tensor, torch.Tensor]:
    """_floor() from the largest scores in order, and whether they are enough to know it."""
    num = ordered.shape[-1]
    kth = ordered.gather(-1, columns.top_k.clamp(1, num) - 1)
    kth = torch.where(columns.top_k > 0, kth, -torch.inf)
    total = _chances(heated, kth).sum(-1, keepdim=True, dtype=torch.float64)
    # The likeliest tokens until their sum reaches p, at least one.
    wanted = columns.top_p * total
    chances = _chances(ordered, kth).double()
    cumulative = chances.cumsum(-1)
    short = cumulative - chances < wanted
    last = ordered.gather(-1, short.sum(-1, keepdim=True).clamp(min=1) - 1)
    limited = columns.top_p < 1.0
    floor = torch.maximum(kth, torch.where(limited, last, -torch.inf))
    return floor, (columns.top_k <= num) & (~limited | (cumulative[:, -1:] >= wanted))


def _walk(chances: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """[M, 1]: where the sum of chances reaches each row's point. Block by block, then inside one.

    Whatever rounding does, it is a place with a chance; where chances are NaN, any in bounds.
    """
    num = chances.shape[-1]
    size = _BLOCK if num % _BLOCK == 0 else num
    blocks = chances.reshape(len(chances), -1, size)
    sums = blocks.sum(-1).double()
    cumulative = sums.cumsum(-1)
    target = points * cumulative[:, -1:]
    at = torch.searchsorted(cumulative, target).clamp(max=num // size - 1)
    target = target - (cumulative.gather(-1, at) - sums.gather(-1, at))
    block = blocks.gather(1, at[:, :, None].expand(-1, -1, size))[:, 0]
    inside = block.double().cumsum(-1)
    target = torch.minimum(target.clamp(min=_LEAST), inside[:, -1:])
    return at * size + torch.searchsorted(inside, target).clamp(max=size - 1)
