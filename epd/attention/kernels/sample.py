"""From scores to a token: what is largest, and a draw from what a floor leaves.

Bytes, for V scores of a row in 16 bits: the largest and whether all are finite take one reading of
2 V; a draw one more, and 4 V / 64 for the sums of blocks. One operation of torch per step of this
makes five copies in 32 bits (widened, relative, divided, exponentiated, floored): over 40 V in some
thirty launches. Penalties and biases touch listed ids alone and are no pass over V before it.

A row is cut into tiles, so that a single one keeps a whole card busy.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from epd.attention.kernels import power_of_two

_BLOCK = 64
_TILE = 64 * _BLOCK


def largest(scores: torch.Tensor, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[N, vocab] twice -> [N] int64 and bool: the first of the largest scores; is all finite?

    All of a row's logits, that is, and its largest score; where they are not, any id in bounds.
    """
    num, vocab = scores.shape
    scores, logits = scores.contiguous(), logits.contiguous()
    tiles = triton.cdiv(vocab, _TILE)
    peaks = torch.empty(num, tiles, dtype=torch.float32, device=scores.device)
    places = torch.empty(num, tiles, dtype=torch.int32, device=scores.device)
    sums = torch.empty(num, tiles, dtype=torch.float32, device=scores.device)
    ids = torch.empty(num, dtype=torch.int64, device=scores.device)
    finite = torch.empty(num, dtype=torch.bool, device=scores.device)
    same = scores.data_ptr() == logits.data_ptr()
    _peaks[(num, tiles)](
        scores, logits, peaks, places, sums, vocab, SAME=same, TILE=_TILE, num_warps=8
    )
    _peak[(num,)](
        peaks, places, sums, ids, finite, tiles, TILES_PAD=power_of_two(tiles), num_warps=1
    )
    return ids, finite


def draw(
    scores: torch.Tensor,
    best: torch.Tensor,
    temperature: torch.Tensor,
    floor: torch.Tensor,
    points: torch.Tensor,
) -> torch.Tensor:
    """[M, vocab] -> [M] ids: where the sum of chances reaches each row's point, by vocabulary.

    A chance is exp((score - best) / temperature), 0 where that exponent is below the floor. All
    others are [M, 1]: `best` the largest scores, `temperature` and `floor` float32, `points`
    float64. In bounds whatever the scores.
    """
    num, vocab = scores.shape
    scores = scores.contiguous()
    best = best.float().contiguous()
    blocks = triton.cdiv(vocab, _BLOCK)
    sums = torch.empty(num, blocks, dtype=torch.float32, device=scores.device)
    ids = torch.empty(num, dtype=torch.int64, device=scores.device)
    shared = (scores, best, temperature.contiguous(), floor.contiguous())
    _block_sums[(num, triton.cdiv(vocab, _TILE))](
        *shared, sums, vocab, blocks, BLOCK=_BLOCK, TILE=_TILE, num_warps=8
    )
    _walk[(num,)](
        *shared,
        sums,
        points.contiguous(),
        ids,
        vocab,
        blocks,
        BLOCK=_BLOCK,
        BLOCKS_PAD=power_of_two(blocks),
        num_warps=8,
    )
    return ids


@triton.jit
def _peaks(scores, logits, peaks, places, sums, vocab, SAME: tl.constexpr, TILE: tl.constexpr):
    """Of one tile: the largest score, where it is first, and a sum that tells of broken logits."""
    row, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    column = tile * TILE + tl.arange(0, TILE)
    here = column < vocab
    score = tl.load(scores + row * vocab + column, mask=here, other=-float("inf")).to(tl.float32)
    if SAME:
        whole = tl.where(here, score, 0.0)
    else:
        whole = tl.load(logits + row * vocab + column, mask=here, other=0.0).to(tl.float32)
    total = tl.sum(whole, 0)
    broken = tl.sum((score != score).to(tl.int32), 0)
    score = tl.where(score == score, score, -float("inf"))
    peak = tl.max(score, 0)
    place = tl.min(tl.where(score == peak, column, vocab - 1), 0)
    at = row * tl.num_programs(1) + tile
    tl.store(peaks + at, peak)
    tl.store(places + at, place)
    tl.store(sums + at, tl.where(broken > 0, float("inf"), total))


@triton.jit
def _peak(peaks, places, sums, ids, finite, tiles, TILES_PAD: tl.constexpr):
    """Of all tiles of a row."""
    row = tl.program_id(0).to(tl.int64)
    tile = tl.arange(0, TILES_PAD)
    here = tile < tiles
    peak = tl.load(peaks + row * tiles + tile, mask=here, other=-float("inf"))
    place = tl.load(places + row * tiles + tile, mask=here, other=0)
    total = tl.sum(tl.load(sums + row * tiles + tile, mask=here, other=0.0), 0)
    best = tl.max(peak, 0)
    first = tl.min(tl.where(here & (peak == best), place, 2147483647), 0)
    tl.store(ids + row, first.to(tl.int64))
    good = (tl.abs(best) < float("inf")) & (tl.abs(total) < float("inf"))
    tl.store(finite + row, good)


@triton.jit
def _chances(score, best, temperature, floor):
    heated = (score.to(tl.float32) - best) / tl.maximum(temperature, 1e-30)
    return tl.where(heated >= floor, tl.exp(heated), 0.0)


@triton.jit
def _block_sums(
    scores,
    best,
    temperature,
    floor,
    sums,
    vocab,
    blocks,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
):
    """Chances of the blocks of one tile."""
    row, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    block = tile * (TILE // BLOCK) + tl.arange(0, TILE // BLOCK)
    column = block[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    score = tl.load(scores + row * vocab + column, mask=column < vocab, other=-float("inf"))
    found = _chances(score, tl.load(best + row), tl.load(temperature + row), tl.load(floor + row))
    found = tl.where(column < vocab, found, 0.0)
    tl.store(sums + row * blocks + block, tl.sum(found, 1), mask=block < blocks)


@triton.jit
def _walk(
    scores,
    best,
    temperature,
    floor,
    sums,
    points,
    ids,
    vocab,
    blocks,
    BLOCK: tl.constexpr,
    BLOCKS_PAD: tl.constexpr,
):
    """Block by block to the one where a row's point lies, then inside of it."""
    row = tl.program_id(0).to(tl.int64)
    block = tl.arange(0, BLOCKS_PAD)
    each = tl.load(sums + row * blocks + block, mask=block < blocks, other=0.0).to(tl.float64)
    until = tl.cumsum(each, 0)
    target = tl.load(points + row) * tl.sum(each, 0)
    at = tl.minimum(tl.sum(((until < target) & (block < blocks)).to(tl.int32), 0), blocks - 1)
    before = tl.sum(tl.where(block < at, each, 0.0), 0)
    column = at * BLOCK + tl.arange(0, BLOCK)
    score = tl.load(scores + row * vocab + column, mask=column < vocab, other=-float("inf"))
    found = _chances(score, tl.load(best + row), tl.load(temperature + row), tl.load(floor + row))
    found = tl.where(column < vocab, found, 0.0).to(tl.float64)
    inside = tl.cumsum(found, 0)
    rest = tl.minimum(tl.maximum(target - before, 1e-300), tl.sum(found, 0))
    step = tl.minimum(tl.sum((inside < rest).to(tl.int32), 0), BLOCK - 1)
    tl.store(ids + row, tl.minimum(at * BLOCK + step, vocab - 1).to(tl.int64))
