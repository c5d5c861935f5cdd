"""From logits to token ids: a few tensor operations for the whole batch, no device sync.

Order and meaning as in transformers' generate(): repetition penalty over prompt and generated
ids, then temperature, top_k, top_p. Temperature 0 takes the argmax after the penalty.

A row depends on nothing but its own logits, parameters and index. The draw walks the filtered
distribution in vocabulary order, not sorted by probability: logits that differ in the last bit
between two batches then move a boundary a little instead of swapping neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from epd.engine.randomness import uniform
from epd.types import RequestKey, SamplingParams

# In place of a token id where the logits were not finite.
BROKEN = -1


@dataclass(frozen=True, slots=True)
class SampleRow:
    """Who a row of logits belongs to. `token_ids` is everything before the sampled token."""

    key: RequestKey
    sampling: SamplingParams
    index: int
    token_ids: Sequence[int]


class Sampler:
    """Keeps, on the device, which ids each running request with a penalty has seen."""

    def __init__(self, *, vocab_size: int, device: torch.device) -> None:
        self._device = device
        self._seen = _SeenIds(vocab_size, device)

    def sample(self, logits: torch.Tensor, rows: Sequence[SampleRow]) -> torch.Tensor:
        """[N, vocab] -> [N] ids on the device; BROKEN for a row whose logits are not finite."""
        scores = logits.float()
        penalized = [n for n, row in enumerate(rows) if row.sampling.repetition_penalty != 1.0]
        if penalized:
            scores = self._penalize(scores.clone(), rows, penalized)
        # Not finite would become an index outside the vocabulary, fatal on a CUDA device.
        finite = scores.isfinite().all(-1)
        scores = torch.where(finite[:, None], scores, 0.0)
        ids = scores.argmax(-1)
        drawn = [n for n, row in enumerate(rows) if row.sampling.temperature > 0]
        if drawn:
            at = torch.tensor(drawn).to(self._device)
            ids[at] = _draw(scores[at], [rows[n] for n in drawn])
        if penalized:
            at = torch.tensor(penalized).to(self._device)
            self._seen.add([rows[n].key for n in penalized], ids[at])
        return torch.where(finite, ids, BROKEN)

    def forget(self, key: RequestKey) -> None:
        """The request is gone."""
        self._seen.forget(key)

    def keys(self) -> Iterable[RequestKey]:
        """Requests that something is kept for."""
        return self._seen.keys()

    def _penalize(
        self, scores: torch.Tensor, rows: Sequence[SampleRow], penalized: list[int]
    ) -> torch.Tensor:
        at = torch.tensor(penalized).to(self._device)
        seen = self._seen.masks([rows[n] for n in penalized])
        factor = self._column([rows[n].sampling.repetition_penalty for n in penalized])
        picked = scores[at]
        scores[at] = torch.where(
            seen, torch.where(picked < 0, picked * factor, picked / factor), picked
        )
        return scores

    def _column(self, values: list[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32).to(self._device)[:, None]


def _draw(scores: torch.Tensor, rows: Sequence[SampleRow]) -> torch.Tensor:
    """Filter, then invert the cumulative distribution at each row's own uniform number."""
    device = scores.device

    def column(values: list[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64).to(device)[:, None]

    # Relative to the best, so that no temperature, however small, can overflow.
    scores = (scores - scores.amax(-1, keepdim=True)).double()
    scores = scores / column([row.sampling.temperature for row in rows])
    scores = _top_k(scores, [row.sampling.top_k for row in rows])
    scores = _top_p(scores, [row.sampling.top_p for row in rows])
    cumulative = scores.softmax(-1).cumsum(-1)
    points = column([uniform(row.sampling.seed, row.index) for row in rows])
    return torch.searchsorted(cumulative, points * cumulative[:, -1:])[:, 0]


def _top_k(scores: torch.Tensor, top_k: list[int]) -> torch.Tensor:
    """Keep scores not below the k-th; equal ones stay."""
    vocab = scores.shape[-1]
    limited = [k if 0 < k < vocab else vocab for k in top_k]
    most = max((k for k in limited if k < vocab), default=0)
    if not most:
        return scores
    places = torch.tensor([min(k, most) - 1 for k in limited]).to(scores.device)[:, None]
    floor = scores.topk(most).values.gather(-1, places)
    unlimited = torch.tensor([k == vocab for k in limited]).to(scores.device)[:, None]
    return scores.masked_fill((scores < floor) & ~unlimited, -torch.inf)


def _top_p(scores: torch.Tensor, top_p: list[float]) -> torch.Tensor:
    """Keep the likeliest tokens until their sum reaches p, at least one."""
    rows = [n for n, p in enumerate(top_p) if p < 1.0]
    if not rows:
        return scores
    at = torch.tensor(rows).to(scores.device)
    limit = torch.tensor([top_p[n] for n in rows], dtype=torch.float64).to(scores.device)
    ordered, order = scores[at].sort(dim=-1, descending=True, stable=True)
    chances = ordered.softmax(-1)
    drop = chances.cumsum(-1) - chances >= limit[:, None]
    drop[:, 0] = False
    dropped = torch.zeros_like(drop).scatter(-1, order, drop)
    filtered = scores.clone()
    filtered[at] = scores[at].masked_fill(dropped, -torch.inf)
    return filtered


class _SeenIds:
    """A boolean row of the vocabulary per request, grown by doubling."""

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self._table = torch.zeros(0, vocab_size, dtype=torch.bool, device=device)
        self._rows: dict[RequestKey, int] = {}
        self._free: list[int] = []

    def masks(self, rows: Sequence[SampleRow]) -> torch.Tensor:
        """[n, vocab]: ids in each request's tokens. A new request is read in here."""
        for row in rows:
            if row.key not in self._rows:
                self._read_in(row)
        return self._table[self._at([row.key for row in rows])]

    def add(self, keys: list[RequestKey], ids: torch.Tensor) -> None:
        self._table[self._at(keys), ids] = True

    def forget(self, key: RequestKey) -> None:
        row = self._rows.pop(key, None)
        if row is not None:
            self._free.append(row)

    def keys(self) -> Iterable[RequestKey]:
        return self._rows.keys()

    def _read_in(self, row: SampleRow) -> None:
        if not self._free:
            self._grow()
        at = self._rows[row.key] = self._free.pop()
        self._table[at] = False
        self._table[at, torch.tensor(row.token_ids).to(self._table.device)] = True

    def _grow(self) -> None:
        old = len(self._table)
        more = self._table.new_zeros(max(old, 8), self._table.shape[1])
        self._table = torch.cat([self._table, more])
        self._free = list(range(old, len(self._table)))[::-1]

    def _at(self, keys: list[RequestKey]) -> torch.Tensor:
        return torch.tensor([self._rows[key] for key in keys]).to(self._table.device)
