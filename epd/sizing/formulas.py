"""The arithmetic of one forward: FLOPs (a product and a sum are two) and bytes. Pure.

Counted are matrix products, which take nearly all of the time; not norms, activations, rotary
embeddings and sampling.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tower:
    """A vision tower with a merger behind it, or an encoder of sound with a projector.

    `mlp_products` is 2 (up, down) or 3 (with a gate). `merge` patches become one row.
    `full_layers` attend within a whole frame, the others within windows of `window` patches.
    `input_values` go into a patch. Each of `taps` inner layers has a merger of its own, whose
    slices go along with every row.
    """

    layers: int
    hidden: int
    intermediate: int
    mlp_products: int
    input_values: int
    merge: int
    full_layers: int
    window: int
    taps: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """Weights that are stored in blocks of `side` x `side`, as `value_bytes` for each value.

    A worker's `ranks` have equal parts of each. One whose parts are no whole blocks is plain.
    """

    side: int
    value_bytes: float
    ranks: int

    def keep(self, divided: int, *, joint: bool = False) -> bool:
        """Does a weight stay so? Ranks divide its side of length `divided`.

        `joint`: another weight begins where it ends, so on one rank too blocks have to end there.
        """
        whole = divided % (self.side * self.ranks) == 0
        return whole or (self.ranks == 1 and not joint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """A language model. Dense ones have one expert, which every token takes."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    experts: int = 1
    experts_per_token: int = 1
    dense_layers: int = 0
    dense_intermediate: int = 0

    @property
    def attention_weights(self) -> int:
        """Of q, k, v and o of one layer."""
        return 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)

    def weights(self, experts: float) -> float:
        """Of all layers, counted in values, where each layer uses so many experts."""
        sparse = self.layers - self.dense_layers
        router = self.hidden * self.experts if self.experts > 1 else 0
        inside = experts * 3 * self.hidden * self.intermediate + router
        dense = self.dense_layers * 3 * self.hidden * self.dense_intermediate
        return self.layers * self.attention_weights + sparse * inside + dense

    def in_blocks(self, blocks: Blocks, experts: float) -> float:
        """Of weights(experts), those that stay in blocks; routers do not."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        kept = sum(2 * width for width in (queries, keys) if blocks.keep(width))
        found = float(self.layers * self.hidden * kept)
        if blocks.keep(self.intermediate, joint=self.experts > 1):
            sparse = self.layers - self.dense_layers
            found += sparse * experts * 3 * self.hidden * self.intermediate
        if blocks.keep(self.dense_intermediate):
            found += self.dense_layers * 3 * self.hidden * self.dense_intermediate
        return found


def tower_flops(tower: Tower, width: int, frames: int, patches: int) -> float:
    """Of an item of `frames` frames (pairs, in a video) with `patches` patches each.

    `width` is the language model's.
    """
    total, h = frames * patches, tower.hidden
    dense = 2 * total * tower.layers * (4 * h * h + tower.mlp_products * h * tower.intermediate)
    whole = frames * tower.full_layers * 4 * h * patches**2
    windows = (tower.layers - tower.full_layers) * 4 * h * total * min(tower.window, patches)
    first = 2 * total * tower.input_values * h
    wide = tower.merge * h
    merged = (1 + tower.taps) * 2 * (total // tower.merge) * (wide * wide + wide * width)
    return float(dense + whole + windows + first + merged)


def sound_flops(tower: Tower, width: int, positions: int, rows: int) -> float:
    """Of one window of sound: two convolutions of width 3, the layers, one projection."""
    h = tower.hidden
    first = 2 * (2 * positions) * 3 * tower.input_values * h + 2 * positions * 3 * h * h
    dense = 2 * positions * tower.layers * (4 * h * h + tower.mlp_products * h * tower.intermediate)
    return float(first + dense + tower.layers * 4 * h * positions**2 + 2 * rows * h * width)


def prefill_flops(model: Language, tokens: int) -> float:
    """Of a prompt: causal attention, and one row of logits."""
    layers = 2 * model.weights(model.experts_per_token) * tokens
    attention = 2 * model.layers * tokens**2 * model.heads * model.head_dim
    return layers + attention + 2 * model.vocabulary * model.hidden


def kv_bytes(model: Language, value_bytes: int) -> int:
    """Of one token."""
    return 2 * model.layers * model.kv_heads * model.head_dim * value_bytes


def row_bytes(width: int, taps: int, value_bytes: int) -> int:
    """Of one row that goes to one position of the prompt."""
    return width * value_bytes * (1 + taps)


def experts_used(model: Language, tokens: int) -> float:
    """How many experts of a layer a step of so many tokens is expected to read."""
    missed = (1 - model.experts_per_token / model.experts) ** tokens
    return model.experts * (1 - missed)


def decode_step_bytes(
    model: Language, batch: int, context: float, value_bytes: int, blocks: Blocks | None = None
) -> float:
    """What one step of `batch` answers reads: the weights once, each answer's KV, the logits'.

    `blocks`: how weights of layers are stored, where that is not as all others are.
    """
    used = experts_used(model, batch)
    read = value_bytes * (model.weights(used) + model.vocabulary * model.hidden)
    if blocks is not None:
        read -= (value_bytes - blocks.value_bytes) * model.in_blocks(blocks, used)
    return read + batch * context * kv_bytes(model, value_bytes)
