"""How large a checkpoint's model is, read from its JSON and the headers of its weights alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from epd.errors import ConfigError
from epd.models.fingerprint import weight_headers
from epd.models.spec import Checkpoint
from epd.types import Modality

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSize:
    """Of the language model."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int

    @property
    def kv_values(self) -> int:
        """K and V of one token in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionSize:
    """Of the vision tower. `patch_values`: numbers that the processor makes of one patch."""

    hidden: int
    intermediate: int
    patch_values: int


def text_size(checkpoint: Checkpoint) -> TextSize:
    """ConfigError names what config.json lacks."""
    config = checkpoint.config
    read = _Reader(checkpoint, {**config, **(config.get("text_config") or {})})
    hidden, heads = read("hidden_size"), read("num_attention_heads")
    return TextSize(
        layers=read("num_hidden_layers"),
        hidden=hidden,
        intermediate=read("intermediate_size"),
        heads=heads,
        kv_heads=read("num_key_value_heads", heads),
        head_dim=read("head_dim", hidden // heads),
    )


def vision_size(checkpoint: Checkpoint) -> VisionSize:
    """Defaults are those of transformers' Qwen2-VL, Qwen2.5-VL and Qwen3-VL configurations.

    In Qwen2-VL's, `hidden_size` is the language model's and the tower's own is `embed_dim`.
    """
    read = _Reader(checkpoint, checkpoint.config.get("vision_config") or {})
    channels = read("in_channels", read("in_chans", 3))
    hidden = read("embed_dim", read("hidden_size", 1280))
    ratio = read("mlp_ratio", 4) if "embed_dim" in read.section else 0
    return VisionSize(
        hidden=hidden,
        intermediate=hidden * ratio or read("intermediate_size", 4304),
        patch_values=channels * read("temporal_patch_size", 2) * read("patch_size", 16) ** 2,
    )


def num_weights(checkpoint: Checkpoint, modalities: Iterable[Modality]) -> tuple[int, int]:
    """(of the towers of these modalities, of the language model), counted in values.

    Other parts of a larger checkpoint do not count.
    """
    spec = checkpoint.spec
    wanted = {name for modality in modalities for name in spec.towers[modality]}
    others = {name for names in spec.towers.values() for name in names} - wanted
    towers = language = 0
    for header in weight_headers(checkpoint.path):
        for name, entry in header.items():
            if name == "__metadata__" or not name.startswith(checkpoint.prefix):
                continue
            values = math.prod(entry["shape"])
            steps = set(name.split("."))
            if steps & wanted:
                towers += values
            elif not steps & others:
                language += values
    return towers, language


@dataclass(frozen=True, slots=True)
class _Reader:
    checkpoint: Checkpoint
    section: Mapping[str, Any]

    def __call__(self, key: str, default: int | None = None) -> int:
        value = self.section.get(key)
        if value is None:
            value = default
        if not isinstance(value, int) or value < 1:
            raise ConfigError(
                f"{self.checkpoint.path / 'config.json'}: {key} is {value!r}, not a positive number"
            )
        return value
