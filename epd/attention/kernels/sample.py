"""From logits to tokens: bias, penalties, early stops, grammar, top_k, top_p, min_p and a draw.

Bytes, for V logits of a row in 16 bits: one reading of 2 V finds the largest score of every block
of 64 and whether all is finite; a row that draws is read twice more, 4 V, for the sums of its
blocks before top_p and after. Where top_k and top_p end is found in those blocks whose largest
score can matter, usually some dozens.
Adjusted scores are never written: every reading makes them from the logits and from bits, V / 8
bytes for each kind of change, and touches counts and biases of marked ids alone. One operation of
torch per step of this makes copies of 4 V for adjusted scores, relative, divided, exponentiated and
floored ones, and sorts: over 40 V in more than a hundred launches; here they are two, or seven.

A row is cut into tiles, so that a single one keeps a whole card busy. Nothing depends on which
other rows there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from epd.attention.kernels import power_of_two

BLOCK = 64
_TILE = 32 * BLOCK
_SEARCHED = 8 * BLOCK


@dataclass(frozen=True, slots=True)
class Notes:
    """What changes scores, a row for each request that wants it; words have a bit for each id.

    `marks` [rows, words] int32: ids with a bias or a count. `stops` [rows, words] int32: ids that
    end an answer. `counts` [rows, vocab] int32: twice how often an id was generated, plus 1 if it
    was seen at all. `bias` [rows, vocab] float32. `penalties` [rows, 4] float32: repetition,
    presence, frequency, and the score of a stop that comes too early.
    """

    marks: torch.Tensor
    stops: torch.Tensor
    counts: torch.Tensor
    bias: torch.Tensor
    penalties: torch.Tensor


def sample(
    logits: torch.Tensor,
    rows: torch.Tensor,
    notes: Notes,
    allowed: torch.Tensor,
    floats: torch.Tensor,
    ints: torch.Tensor,
    *,
    draws: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """[N, vocab] -> [N] int64 and bool: ids, in bounds whatever the logits; is all finite?

    `rows` [N, 5] int64: slot, index of the token, row of `notes`, whether a stop comes too early,
    row of `allowed`; -1: none. `allowed` [M, words] int32: ids that may come. By slot: `floats`
    [_, 3] float64 are temperature (0: the likeliest), top_p and min_p, `ints` [_, 3] int64 top_k,
    seed and choice. `draws`: does any row? Chosen ids are counted in `notes`.
    """
    num, vocab = logits.shape
    logits = logits.contiguous()
    blocks = triton.cdiv(vocab, BLOCK)
    sizes = {"BLOCK": BLOCK, "BLOCKS_PAD": power_of_two(blocks)}
    peaks = torch.empty(num, blocks, dtype=torch.float32, device=logits.device)
    sums = torch.empty(num, blocks, dtype=torch.float32, device=logits.device)
    best = torch.empty(num, dtype=torch.float32, device=logits.device)
    ids = torch.empty(num, dtype=torch.int64, device=logits.device)
    finite = torch.empty(num, dtype=torch.bool, device=logits.device)
    noted = (notes.marks, notes.stops, notes.counts, notes.bias, notes.penalties)
    scored = (logits, rows, allowed, *noted)
    shape = (vocab, blocks, notes.marks.shape[1])
    tiles = (num, triton.cdiv(vocab, _TILE))
    _peaks[tiles](*scored, peaks, sums, *shape, BLOCK=BLOCK, TILE=_TILE, num_warps=8)
    _best[(num,)](*scored, floats, peaks, sums, best, ids, finite, *shape, **sizes, num_warps=4)
    if draws:
        edges = torch.empty(num, dtype=torch.int32, device=logits.device)
        lists = torch.empty(num, blocks, dtype=torch.int32, device=logits.device)
        drawn = (*scored, floats, ints, peaks, best, edges, sums)
        for mass in (False, True):
            search = {"MASS": mass, **sizes, "TILE": _SEARCHED, "num_warps": 8}
            _edge[(num,)](*drawn, lists, *shape, **search)
            _sums[tiles](*drawn, *shape, BLOCK=BLOCK, TILE=_TILE, num_warps=8)
        _walk[(num,)](*drawn, ids, *shape, **sizes, num_warps=8)
    return ids, finite


@triton.jit
def _bits(words, row, column, here, width):
    """Of a row of words, the bit of each column."""
    word = tl.load(words + row * width + column // 32, mask=here, other=0)
    return here & (((word >> (column % 32)) & 1) != 0)


@triton.jit
def _scores(
    row,
    column,
    here,
    logits,
    rows,
    allowed,
    marks,
    stops,
    counts,
    bias,
    penalties,
    vocab,
    width,
):
    """Adjusted ones of these columns in float32, and the logits; -inf where not `here`."""
    logit = tl.load(logits + row * vocab + column, mask=here, other=-float("inf")).to(tl.float32)
    note = tl.load(rows + row * 5 + 2)
    early = tl.load(rows + row * 5 + 3)
    mask = tl.load(rows + row * 5 + 4)
    score = logit
    if note >= 0:
        marked = _bits(marks, note, column, here, width)
        count = tl.load(counts + note * vocab + column, mask=marked, other=0)
        score += tl.load(bias + note * vocab + column, mask=marked, other=0.0)
        repetition = tl.load(penalties + note * 4)
        presence = tl.load(penalties + note * 4 + 1)
        frequency = tl.load(penalties + note * 4 + 2)
        repeated = tl.where(score < 0, score * repetition, score / repetition)
        score = tl.where((count & 1) != 0, repeated, score)
        times = count >> 1
        taken = tl.where(times > 0, presence, 0.0) + times.to(tl.float32) * frequency
        score = tl.where(times > 0, score - taken, score)
        if early > 0:
            stop = _bits(stops, note, column, here, width)
            score = tl.where(stop, tl.load(penalties + note * 4 + 3), score)
    if mask >= 0:
        score = tl.where(_bits(allowed, mask, column, here, width), score, -float("inf"))
    return score, logit


@triton.jit
def _count(chosen, row, rows, marks, counts, vocab, width):
    """This id was chosen for the row."""
    note = tl.load(rows + row * 5 + 2)
    if note >= 0:
        at = counts + note * vocab + chosen
        tl.store(at, (tl.load(at) + 2) | 1)
        word = marks + note * width + chosen // 32
        tl.store(word, tl.load(word) | (1 << (chosen % 32).to(tl.int32)))


@triton.jit
def _peaks(
    logits,
    rows,
    allowed,
    marks,
    stops,
    counts,
    bias,
    penalties,
    peaks,
    sums,
    vocab,
    blocks,
    width,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
):
    """Of the blocks of one tile: the largest score, and a sum that tells of broken logits."""
    row, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    block = tile * (TILE // BLOCK) + tl.arange(0, TILE // BLOCK)
    column = block[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    here = column < vocab
    score, logit = _scores(
        row,
        column,
        here,
        logits,
        rows,
        allowed,
        marks,
        stops,
        counts,
        bias,
        penalties,
        vocab,
        width,
    )
    total = tl.sum(tl.where(here, logit, 0.0), 1)
    broken = tl.max((score != score).to(tl.int32), 1)
    score = tl.where(score == score, score, -float("inf"))
    at = row * blocks + block
    tl.store(peaks + at, tl.max(score, 1), mask=block < blocks)
    tl.store(sums + at, tl.where(broken > 0, float("inf"), total), mask=block < blocks)


@triton.jit
def _best(
    logits,
    rows,
    allowed,
    marks,
    stops,
    counts,
    bias,
    penalties,
    floats,
    peaks,
    sums,
    best,
    ids,
    finite,
    vocab,
    blocks,
    width,
    BLOCK: tl.constexpr,
    BLOCKS_PAD: tl.constexpr,
):
    """Of a row: the largest score and the first id that has it. Chosen where nothing is drawn."""
    row = tl.program_id(0).to(tl.int64)
    block = tl.arange(0, BLOCKS_PAD)
    there = block < blocks
    peak = tl.load(peaks + row * blocks + block, mask=there, other=-float("inf"))
    total = tl.sum(tl.load(sums + row * blocks + block, mask=there, other=0.0), 0)
    most = tl.max(peak, 0)
    first = tl.min(tl.where(there & (peak == most), block, blocks - 1), 0)
    column = first * BLOCK + tl.arange(0, BLOCK)
    here = column < vocab
    score, _ = _scores(
        row,
        column,
        here,
        logits,
        rows,
        allowed,
        marks,
        stops,
        counts,
        bias,
        penalties,
        vocab,
        width,
    )
    found = tl.min(tl.where(here & (score == most), column, vocab - 1), 0).to(tl.int64)
    tl.store(ids + row, found)
    tl.store(best + row, tl.where(tl.abs(most) < float("inf"), most, 0.0))
    tl.store(finite + row, (tl.abs(most) < float("inf")) & (tl.abs(total) < float("inf")))
    if tl.load(floats + tl.load(rows + row * 5) * 3) == 0:
        _count(found, row, rows, marks, counts, vocab, width)


@triton.jit
def _below(score, best, temperature):
    """How far a score is below the best one, heated, as bits that are ordered as it is."""
    heated = (score - best) / tl.maximum(temperature.to(tl.float32), 1e-30)
    return tl.abs(heated).to(tl.int32, bitcast=True)


@triton.jit
def _chances(below, edge):
    """Not normalised: the best has 1. 0 beyond the edge."""
    chance = tl.exp(-below.to(tl.float32, bitcast=True))
    return tl.where((below <= edge) & (below < 0x7F800000), chance, 0.0)


@triton.jit
def _list(nearest, edge, list_at, BLOCKS_PAD: tl.constexpr):
    """Writes which blocks have a score within the edge; how many."""
    chosen = nearest <= edge
    place = tl.cumsum(chosen.to(tl.int32), 0) - 1
    tl.debug_barrier()  # nobody reads the list before this one any more
    tl.store(list_at + place, tl.arange(0, BLOCKS_PAD), mask=chosen)
    tl.debug_barrier()
    return tl.sum(chosen.to(tl.int32), 0)


@triton.jit
def _nth(nearest, wanted):
    """The smallest number that so many of these are within, bit by bit."""
    found = tl.full((), 0, tl.int32)
    for step in range(31):
        further = found + (1 << (30 - step))
        enough = tl.sum((nearest < further).to(tl.int32), 0) >= wanted
        found = tl.where(enough, found, further)
    return tl.minimum(found, 0x7F800000)


@triton.jit
def _edge(
    logits,
    rows,
    allowed,
    marks,
    stops,
    counts,
    bias,
    penalties,
    floats,
    ints,
    peaks,
    best,
    edges,
    sums,
    lists,
    vocab,
    blocks,
    width,
    MASS: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCKS_PAD: tl.constexpr,
    TILE: tl.constexpr,
):
    """Of a row: how far below the best a score may be, by top_k; with MASS, by top_p and min_p.

    That is the smallest distance within which there is enough. In every turn what it can be is cut
    into four parts, and only blocks are looked at that have a score which may be so near.
    """
    row = tl.program_id(0).to(tl.int64)
    slot = tl.load(rows + row * 5)
    temperature = tl.load(floats + slot * 3)
    most = tl.load(best + row)
    block = tl.arange(0, BLOCKS_PAD)
    peak = tl.load(peaks + row * blocks + block, mask=block < blocks, other=0.0)
    nearest = tl.where(block < blocks, _below(peak, most, temperature), 0x7F800001)
    low = tl.full((), 0, tl.int32)
    if MASS:
        top_p = tl.load(floats + slot * 3 + 1)
        total = tl.load(sums + row * blocks + block, mask=block < blocks, other=0.0)
        wanted = top_p * tl.sum(total.to(tl.float64), 0)
        kept = tl.load(edges + row)
        limited = (temperature > 0) & (top_p < 1)
        high = kept
    else:
        top_k = tl.load(ints + slot * 3)
        wanted = top_k.to(tl.float64)
        kept = tl.full((), 0x7F800000, tl.int32)
        limited = (temperature > 0) & (top_k > 0) & (top_k < vocab)
        # So many blocks have a score within it: none beyond it has one of the top_k.
        high = _nth(nearest, top_k)
    if not limited:
        low, high = kept, kept
    quarter = tl.arange(0, 4)
    first = tl.full((), 1, tl.int32)
    while low < high:
        num = _list(nearest, high, list_at=lists + row * blocks, BLOCKS_PAD=BLOCKS_PAD)
        ends = low + ((high - low) >> 2) * (quarter + 1)
        usual = 0x40800000 + (quarter << 24)  # the bits of 4.0, 16.0, 64.0
        ends = tl.where((first == 1) & (usual < high), usual, ends)
        ends = tl.where(quarter == 3, high, ends)
        first = tl.full((), 0, tl.int32)
        found = tl.zeros((4,), tl.float64)
        for start in range(0, num, TILE // BLOCK):
            place = start + tl.arange(0, TILE) // BLOCK
            listed = tl.load(lists + row * blocks + place, mask=place < num, other=0)
            column = listed * BLOCK + tl.arange(0, TILE) % BLOCK
            here = (place < num) & (column < vocab)
            score, _ = _scores(
                row, column, here, logits, rows, allowed, marks, stops, counts, bias, penalties,
                vocab, width,
            )  # fmt: skip
            below = _below(score, most, temperature)
            each = _chances(below, kept) if MASS else here.to(tl.float32)
            inside = here[:, None] & (below[:, None] <= ends[None, :])
            found += tl.sum(tl.where(inside, each[:, None], 0.0), 0).to(tl.float64)
        short = (found < wanted) & (quarter < 3)
        low = tl.maximum(low, tl.max(tl.where(short, ends + 1, 0), 0))
        high = tl.min(tl.where(short, high, ends), 0)
    if MASS:
        min_p = tl.load(floats + slot * 3 + 2)
        if min_p > 0:
            least = tl.abs(tl.log(min_p).to(tl.float32)).to(tl.int32, bitcast=True)
            high = tl.minimum(high, least)
    tl.store(edges + row, high)


@triton.jit
def _sums(
    logits,
    rows,
    allowed,
    marks,
    stops,
    counts,
    bias,
    penalties,
    floats,
    ints,
    peaks,
    best,
    edges,
    sums,
    vocab,
    blocks,
    width,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
):
    """Chances of the blocks of one tile."""
    row, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    temperature = tl.load(floats + tl.load(rows + row * 5) * 3)
    if temperature > 0:
        block = tile * (TILE // BLOCK) + tl.arange(0, TILE // BLOCK)
        column = block[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
        here = column < vocab
        score, _ = _scores(
            row, column, here, logits, rows, allowed, marks, stops, counts, bias, penalties, vocab,
            width,
        )  # fmt: skip
        below = _below(score, tl.load(best + row), temperature)
        found = tl.where(here, _chances(below, tl.load(edges + row)), 0.0)
        tl.store(sums + row * blocks + block, tl.sum(found, 1), mask=block < blocks)


@triton.jit
def _walk(
    logits,
    rows,
    allowed,
    marks,
    stops,
    counts,
    bias,
    penalties,
    floats,
    ints,
    peaks,
    best,
    edges,
    sums,
    ids,
    vocab,
    blocks,
    width,
    BLOCK: tl.constexpr,
    BLOCKS_PAD: tl.constexpr,
):
    """Block by block to the one where a row's point lies, then inside of it, by vocabulary."""
    row = tl.program_id(0).to(tl.int64)
    slot = tl.load(rows + row * 5)
    temperature = tl.load(floats + slot * 3)
    if temperature > 0:
        block = tl.arange(0, BLOCKS_PAD)
        each = tl.load(sums + row * blocks + block, mask=block < blocks, other=0.0).to(tl.float64)
        until = tl.cumsum(each, 0)
        target = _point(row, slot, rows, ints) * tl.sum(each, 0)
        at = tl.minimum(tl.sum(((until < target) & (block < blocks)).to(tl.int32), 0), blocks - 1)
        before = tl.sum(tl.where(block < at, each, 0.0), 0)
        column = at * BLOCK + tl.arange(0, BLOCK)
        here = column < vocab
        score, _ = _scores(
            row, column, here, logits, rows, allowed, marks, stops, counts, bias, penalties, vocab,
            width,
        )  # fmt: skip
        below = _below(score, tl.load(best + row), temperature)
        chance = tl.where(here, _chances(below, tl.load(edges + row)), 0.0).to(tl.float64)
        inside = tl.cumsum(chance, 0)
        rest = tl.minimum(tl.maximum(target - before, 1e-300), tl.sum(chance, 0))
        step = tl.minimum(tl.sum((inside < rest).to(tl.int32), 0), BLOCK - 1)
        chosen = tl.minimum(at * BLOCK + step, vocab - 1).to(tl.int64)
        tl.store(ids + row, chosen)
        _count(chosen, row, rows, marks, counts, vocab, width)


@triton.jit
def _mix(value):
    """A bijection of 64-bit numbers, see epd.engine.randomness."""
    value += 0x9E3779B97F4A7C15
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB
    return value ^ (value >> 31)


@triton.jit
def _point(row, slot, rows, ints):
    """In (0, 1), by seed, choice and index."""
    one = tl.arange(0, 1)  # the interpreter warns where a number alone overflows
    seed = tl.load(ints + slot * 3 + 1 + one).to(tl.uint64, bitcast=True)
    choice = tl.load(ints + slot * 3 + 2 + one).to(tl.uint64, bitcast=True)
    index = tl.load(rows + row * 5 + 1 + one).to(tl.uint64, bitcast=True)
    counter = (index + 1) * 0x9E3779B97F4A7C15 + choice * 0xD1B54A32D192ED03
    mixed = _mix(_mix(seed) + counter)
    point = ((mixed >> 12).to(tl.float64) + 0.5) * 2.220446049250313e-16
    return tl.sum(point, 0)
