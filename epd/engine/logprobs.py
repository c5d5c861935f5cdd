"""Log-probabilities of the model's own logits: measured on the device, read in one transfer."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from epd.engine.largest import topk
from epd.types import TokenLogprobs

_ROWS_AT_ONCE = 64  # the sum of exponentials makes a copy of its rows


def measure(logits: torch.Tensor, ids: torch.Tensor, top: int) -> torch.Tensor:
    """[R, vocab] and [R] ids -> [R, 1 + 2 * top]: logprob of the id, likeliest ids, their logprobs.

    In float64, which holds every id exactly. No wait for the device.
    """
    firsts = range(0, len(ids), _ROWS_AT_ONCE)
    parts = [slice(first, first + _ROWS_AT_ONCE) for first in firsts]
    return torch.cat([_measure(logits[part], ids[part], top) for part in parts])


def read(measured: torch.Tensor, tops: Iterable[int]) -> list[TokenLogprobs]:
    """What measure() found, with as many of the likeliest as each row asked for. Waits once."""
    most = (measured.shape[1] - 1) // 2
    return [
        TokenLogprobs(
            logprob=row[0],
            top=tuple(zip(map(int, row[1 : 1 + top]), row[1 + most : 1 + most + top], strict=True)),
        )
        for row, top in zip(measured.tolist(), tops, strict=True)
    ]


@torch.inference_mode()
def measure_prompt(logits: torch.Tensor, next_ids: torch.Tensor, top: int) -> torch.Tensor:
    """Of each next prompt token: row t of [T, vocab] against next_ids[t], both on one device."""
    return measure(logits, next_ids, min(top, logits.shape[-1]))


def read_prompt(measured: torch.Tensor) -> tuple[TokenLogprobs, ...]:
    """What measure_prompt() found. Waits once."""
    return tuple(read(measured, [(measured.shape[1] - 1) // 2] * len(measured)))


def _measure(logits: torch.Tensor, ids: torch.Tensor, top: int) -> torch.Tensor:
    logits = logits.float()
    total = logits.logsumexp(-1, keepdim=True)
    own = logits.gather(-1, ids[:, None]) - total
    values, likeliest = topk(logits, top)
    return torch.cat([own, likeliest.double(), values - total], -1)
