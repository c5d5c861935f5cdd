"""The least that a stage has to move and to compute, counted from the model's shape. Pure.

A floor is a count divided by what the card was measured to do. Counted are the bytes that no
implementation can save (every weight read once, KV read and written, logits written and read), and
the operations of matrix products and attention: a product of n values with a matrix takes
2 * n * columns of them. What is left out (norms, rotary embedding, activations that could stay in
registers) makes the floors a little lower than can be reached.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.gpu.shape import Shape, Text, Tower


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What the card was measured to do: bytes read, and operations of a matrix product, a second.

    The second in the dtype of the model's weights.
    """

    bytes_per_s: float
    flops_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBytes:
    """What a decode step moves, in bytes."""

    weights: int
    kv_read: int
    kv_written: int
    embeddings: int
    logits: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.kv_read + self.kv_written + self.embeddings + self.logits


def decode_bytes(shape: Shape, batch: int, context: int) -> StepBytes:
    """A step with `batch` requests of one new token each, `context` tokens before it.

    Logits are written once and read once. Of the embedding a row per request is read.
    """
    text, size = shape.text, shape.item_bytes
    return StepBytes(
        weights=size * (text.layers * text.layer_weights + text.head_weights),
        kv_read=size * batch * context * text.kv_values,
        kv_written=size * batch * text.kv_values,
        embeddings=size * batch * text.hidden,
        logits=2 * size * batch * text.vocab,
    )


def prefill_flops(text: Text, tokens: int, before: int = 0) -> int:
    """A chunk of `tokens` behind `before` others, with the logits of its last token."""
    products = 2 * tokens * text.layers * text.layer_weights
    pairs = tokens * before + tokens * (tokens + 1) // 2
    # Scores and their use: two products of head_dim values per pair and head.
    attention = 4 * pairs * text.heads * text.head_dim * text.layers
    return products + attention + 2 * text.head_weights


def tower_flops(tower: Tower, grids: Sequence[tuple[int, int]]) -> int:
    """Pictures of these heights and widths in patches, one after the other or together."""
    return sum(_picture_flops(tower, height, width) for height, width in grids)


def _picture_flops(tower: Tower, height: int, width: int) -> int:
    patches = height * width
    products = 2 * patches * (tower.patch_weights + tower.depth * tower.layer_weights)
    rows = patches // tower.merge**2
    merging = 2 * rows * tower.mergers * tower.merger_weights
    pairs = tower.full_layers * patches**2
    if tower.window is not None:
        windows = window_pairs(height, width, tower.window)
        pairs += (tower.depth - tower.full_layers) * windows
    return products + merging + 4 * pairs * tower.hidden


def window_pairs(height: int, width: int, window: int) -> int:
    """Pairs of patches that see each other in one layer with windows; those at edges are cut."""

    def squares(side: int) -> int:
        whole, rest = divmod(side, window)
        return whole * window**2 + rest**2

    # (h1^2 + h2^2 + ...) * (w1^2 + w2^2 + ...) = the sum of (hi * wj)^2
    return squares(height) * squares(width)


def ttft_floor_s(
    shape: Shape, grids: Sequence[tuple[int, int]], tokens: int, rates: Rates
) -> float:
    """Towers, rows written and read once, prefill of `tokens`: one after the other, without pause.

    Prefill of few tokens is bound by reading the weights.
    """
    towers = tower_flops(shape.tower, grids) / rates.flops_per_s
    rows = 2 * row_bytes(shape, grids) / rates.bytes_per_s
    weights = decode_bytes(shape, 0, 0).weights / rates.bytes_per_s
    return towers + rows + max(prefill_flops(shape.text, tokens) / rates.flops_per_s, weights)


def row_bytes(shape: Shape, grids: Sequence[tuple[int, int]]) -> int:
    """Embedding rows of these pictures, deeper slices included."""
    tower = shape.tower
    rows = sum(height * width for height, width in grids) // tower.merge**2
    return shape.item_bytes * rows * tower.mergers * tower.out_hidden


def kv_bytes(shape: Shape, tokens: int) -> int:
    """KV of so many tokens."""
    return shape.item_bytes * tokens * shape.text.kv_values
