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

    @property
    def product_weights(self) -> int:
        """Of all layers, those that are no expert's and no router's."""
        alone = self.layers - self.dense_layers if self.experts == 1 else 0
        inside = 3 * self.hidden * (alone * self.intermediate)
        dense = 3 * self.hidden * (self.dense_layers * self.dense_intermediate)
        return self.layers * self.attention_weights + inside + dense

    def weights(self, experts: float) -> float:
        """Of all layers, counted in values, where each layer uses so many experts."""
        sparse = self.layers - self.dense_layers
        router = self.hidden * self.experts if self.experts > 1 else 0
        inside = experts * 3 * self.hidden * self.intermediate + router
        dense = self.dense_layers * 3 * self.hidden * self.dense_intermediate
        return self.layers * self.attention_weights + sparse * inside + dense


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
    model: Language, batch: int, context: float, value_bytes: int, product_bytes: float
) -> float:
    """What one step of `batch` answers reads: the weights once, each answer's KV, the logits'.

    `product_bytes` is what one of the `product_weights` takes.
    """
    weights = model.weights(experts_used(model, batch)) + model.vocabulary * model.hidden
    products = model.product_weights
    read = product_bytes * products + value_bytes * (weights - products)
    return read + batch * context * kv_bytes(model, value_bytes)
