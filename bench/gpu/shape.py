"""The shape of a model: what config.json says that decides about bytes and operations. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHAPES = Path(__file__).parent / "shapes"
REAL = ("qwen3_vl_8b", "qwen2_5_vl_7b")
TINY = ("tiny_qwen3_vl", "tiny_qwen2_5_vl")

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Of the language model. Norms and biases, a ten-thousandth of the values, are left out."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int

    @property
    def layer_weights(self) -> int:
        """Values of one layer's matrices: q and o, k and v, gate, up and down."""
        attention = 2 * self.heads * self.head_dim + 2 * self.kv_heads * self.head_dim
        return self.hidden * (attention + 3 * self.intermediate)

    @property
    def head_weights(self) -> int:
        """Values of the matrix that makes logits."""
        return self.hidden * self.vocab

    @property
    def kv_values(self) -> int:
        """K and V of one token in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """Of one layer: how many there are, and how many of them a token takes."""

    name: str
    number: int
    taken: int
    hidden: int
    inside: int

    @property
    def weights(self) -> int:
        """Values of one: gate, up and down."""
        return 3 * self.hidden * self.inside


QWEN3_VL_30B_A3B = Experts(name="qwen3_vl_30b_a3b", number=128, taken=8, hidden=2048, inside=768)
"""As its config.json has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tower:
    """Of a tower over patches.

    `mlp_matrices`: 3 with a gate, else 2. `window`: patches along a side of an attention window,
    None where all layers see the whole picture; `full_layers` do in any case. `mergers` count the
    one at the end and those of deeper rows.
    """

    depth: int
    hidden: int
    intermediate: int
    mlp_matrices: int
    out_hidden: int
    patch: int
    temporal_patch: int
    merge: int
    mergers: int
    window: int | None
    full_layers: int

    @property
    def layer_weights(self) -> int:
        """Values of one layer's matrices: q, k, v and o, then the MLP's."""
        return self.hidden * (4 * self.hidden + self.mlp_matrices * self.intermediate)

    @property
    def merger_weights(self) -> int:
        """Values of one merger's two matrices; it runs once per row."""
        wide = self.hidden * self.merge**2
        return wide * (wide + self.out_hidden)

    @property
    def patch_weights(self) -> int:
        """Values of the product that makes a patch's first hidden state from its pixels."""
        return self.hidden * 3 * self.temporal_patch * self.patch**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One model. `config` becomes its config.json."""

    name: str
    family: str
    config: Mapping[str, Any]
    max_image_tokens: int
    text: Text
    tower: Tower

    @property
    def dtype(self) -> str:
        """Of the weights."""
        return str(self.config["dtype"])

    @property
    def item_bytes(self) -> int:
        """Bytes of one weight, and of one value of KV."""
        return ITEM_BYTES[self.dtype]

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """Patches along a picture's height and width: each a multiple of what merges to a row.

        As the processor rounds sizes between its limits.
        """
        step = self.tower.patch * self.tower.merge
        across = [max(step, round(side / step) * step) for side in (height, width)]
        return across[0] // self.tower.patch, across[1] // self.tower.patch


def read_shape(name: str) -> Shape:
    """A file of SHAPES by its name. KeyError: it lacks a value."""
    found = json.loads((SHAPES / f"{name}.json").read_text())
    config = found["config"]
    return Shape(
        name=name,
        family=found["family"],
        config=config,
        max_image_tokens=found["max_image_tokens"],
        text=_text(config["text_config"]),
        tower=_tower(config["vision_config"]),
    )


def _text(config: Mapping[str, Any]) -> Text:
    heads = config["num_attention_heads"]
    return Text(
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        intermediate=config["intermediate_size"],
        heads=heads,
        kv_heads=config["num_key_value_heads"],
        head_dim=config.get("head_dim", config["hidden_size"] // heads),
        vocab=config["vocab_size"],
    )


def _tower(config: Mapping[str, Any]) -> Tower:
    windowed = "window_size" in config
    depth = config["depth"]
    return Tower(
        depth=depth,
        hidden=config["hidden_size"],
        intermediate=config["intermediate_size"],
        # Only the tower with windows has a gate in its MLP.
        mlp_matrices=3 if windowed else 2,
        out_hidden=config["out_hidden_size"],
        patch=config["patch_size"],
        temporal_patch=config["temporal_patch_size"],
        merge=config["spatial_merge_size"],
        mergers=1 + len(config.get("deepstack_visual_indexes", ())),
        window=config["window_size"] // config["patch_size"] if windowed else None,
        full_layers=len(config["fullatt_block_indexes"]) if windowed else depth,
    )
