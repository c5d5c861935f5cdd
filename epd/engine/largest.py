"""The largest scores of each row of a vocabulary, in two stages: of blocks, then inside of them.

A plain argmax or topk looks at one number at a time on a CPU; the largest of a block is found with
whole vectors. On any device the result is the same up to the order of equal scores.
"""

from __future__ import annotations

import torch

_BLOCK = 64


def argmax(scores: torch.Tensor) -> torch.Tensor:
    """[N, vocab] -> [N] ids. A NaN is the largest."""
    if scores.shape[-1] % _BLOCK:
        return scores.argmax(-1)
    blocks = scores.reshape(len(scores), -1, _BLOCK)
    at = blocks.amax(-1).argmax(-1)
    return at * _BLOCK + _gather(blocks, at[:, None]).argmax(-1)


def argmax_of_finite(
    scores: torch.Tensor, logits: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """argmax() of scores, and whether it and all the logits that they came from are finite, [N]."""
    ids = argmax(scores)
    # A sum tells of any number that is not finite, the best of one that adjusting made so.
    sums = logits.sum(-1, dtype=torch.float32)
    return ids, sums.isfinite() & scores.gather(-1, ids[:, None])[:, 0].isfinite()


def topk(scores: torch.Tensor, num: int) -> tuple[torch.Tensor, torch.Tensor]:
    """[N, vocab] -> [N, num] values, largest first, and their ids."""
    if scores.shape[-1] % _BLOCK or num * _BLOCK >= scores.shape[-1]:
        found = scores.topk(num)
        return found.values, found.indices
    blocks = scores.reshape(len(scores), -1, _BLOCK)
    at = blocks.amax(-1).topk(num, sorted=False).indices
    ids = at[:, :, None] * _BLOCK + torch.arange(_BLOCK, device=scores.device)
    found = _gather(blocks, at).topk(num)
    return found.values, ids.flatten(1).gather(-1, found.indices)


def _gather(blocks: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """[N, blocks, size] and [N, k] -> [N, k * size]."""
    return blocks.gather(1, at[:, :, None].expand(-1, -1, blocks.shape[-1])).flatten(1)
