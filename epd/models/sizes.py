"""How large a checkpoint's model is, read from its JSON and the headers of its weights alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epd.errors import ConfigError
from epd.models.fingerprint import weight_headers
from epd.models.sections import text_section, tower_sections
from epd.models.spec import Checkpoint
from epd.models.storage import FACTOR_BYTES, SCALES, share_in_blocks, stays_small
from epd.types import Modality

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

_USUAL_HIDDEN = 1280


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
class LanguageWeights:
    """Of the language model, in values: the table of ids, what ranks divide, and what each has."""

    embedding: int
    divided: int
    whole: int
    tied: bool

    def of_rank(self, rank: int, tp: int) -> int:
        """Rank 0 alone embeds ids; with a tied head the others have their part of the table."""
        table = self.embedding if rank == 0 else self.embedding // tp * self.tied
        return table + self.divided // tp + self.whole


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallWeights:
    """What stays in FP8 of a part of a model: how many values, and bytes with factors."""

    values: int = 0
    num_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerSize:
    """Of the widest tower."""

    hidden: int
    intermediate: int


def text_size(checkpoint: Checkpoint) -> TextSize:
    """ConfigError names what config.json lacks."""
    read = _Reader(checkpoint, text_section(checkpoint.config))
    hidden, heads = read("hidden_size"), read("num_attention_heads")
    return TextSize(
        layers=read("num_hidden_layers"),
        hidden=hidden,
        intermediate=read("intermediate_size"),
        heads=heads,
        kv_heads=read("num_key_value_heads", heads),
        head_dim=read("head_dim", hidden // heads),
    )


def refuse_division(checkpoint: Checkpoint, tp: int) -> None:
    """ConfigError where the heads cannot be dealt to `tp` ranks; it names both numbers."""
    text = text_size(checkpoint)
    for name, number in (("KV heads", text.kv_heads), ("attention heads", text.heads)):
        if number % tp:
            raise ConfigError(
                f"tp is {tp}: {checkpoint.name} has {number} {name}, and {tp} does not divide "
                f"{number}"
            )


def tower_size(checkpoint: Checkpoint) -> TowerSize:
    """Of every kind of tower, by the names that transformers' configurations use.

    Where a configuration is silent: as large as published ones are, or as the language model.
    """
    hidden, intermediate = [], []
    for section in tower_sections(checkpoint.config):
        read = _Reader(checkpoint, section)
        width = read("embed_dim", read("d_model", read("hidden_size", _USUAL_HIDDEN)))
        hidden.append(width)
        usual = int(width * (section.get("mlp_ratio") or 4))
        inside = read("encoder_ffn_dim", read("intermediate_size", usual))
        intermediate.append(inside)
    text = text_size(checkpoint)
    return TowerSize(
        hidden=max(hidden, default=text.hidden),
        intermediate=max(intermediate, default=text.intermediate),
    )


def num_weights(checkpoint: Checkpoint, modalities: Iterable[Modality]) -> tuple[int, int]:
    """(of the towers of these modalities, of the language model), counted in values.

    Other parts of a larger checkpoint do not count.
    """
    spec = checkpoint.spec
    wanted = {name for modality in modalities for name in spec.towers[modality]}
    others = {name for names in spec.towers.values() for name in names} - wanted
    towers = language = 0
    for name, shape in _shapes(checkpoint):
        values = math.prod(shape)
        steps = set(name.split("."))
        if steps & wanted:
            towers += values
        elif not steps & others:
            language += values
    return towers, language


def language_weights(checkpoint: Checkpoint) -> LanguageWeights:
    """By what becomes of them under tensor parallelism: vectors and routers stay whole."""
    others = {name for names in checkpoint.spec.towers.values() for name in names}
    embedding = divided = whole = 0
    tied = True
    for name, shape in _shapes(checkpoint):
        steps = name.split(".")
        if others.intersection(steps):
            continue
        values = math.prod(shape)
        if "embed_tokens" in steps:
            embedding += values
        elif len(shape) == 1 or steps[-2:] == ["gate", "weight"]:
            whole += values
        else:
            divided += values
            tied = tied and "lm_head" not in steps
    return LanguageWeights(embedding=embedding, divided=divided, whole=whole, tied=tied)


def small_weights(checkpoint: Checkpoint, ranks: int = 1) -> SmallWeights:
    """What one rank can keep of the language model; whether it does, storage.why_plain says."""
    towers = {name for names in checkpoint.spec.towers.values() for name in names}
    shapes = _small_shapes(checkpoint).items()
    inside = text_section(checkpoint.config).get("moe_intermediate_size")
    return _small(
        share_in_blocks(name, shape, ranks, inside)
        for name, shape in shapes
        if not towers & set(name.split("."))
    )


def small_towers(checkpoint: Checkpoint, modalities: Iterable[Modality]) -> SmallWeights:
    """The same of the towers of these modalities, which are never divided."""
    wanted = {name for modality in modalities for name in checkpoint.spec.towers[modality]}
    return _small(
        share_in_blocks(name, shape, 1, None)
        for name, shape in _small_shapes(checkpoint).items()
        if wanted & set(name.split("."))
    )


def _small(shares: Iterable[tuple[int, int] | None]) -> SmallWeights:
    found = [share for share in shares if share is not None]
    values, blocks = (sum(share[of] for share in found) for of in (0, 1))
    return SmallWeights(values=values, num_bytes=values + FACTOR_BYTES * blocks)


def _small_shapes(checkpoint: Checkpoint) -> Mapping[str, Sequence[int]]:
    """Of every weight in FP8 of this model, by names that say which part has it."""
    if checkpoint.dummy:
        from epd.models.partial import small_shapes

        return small_shapes(checkpoint)
    return {
        name: entry["shape"]
        for header in weight_headers(checkpoint.path)
        for name, entry in header.items()
        if name != "__metadata__" and name.startswith(checkpoint.prefix) and stays_small(entry)
    }


def _shapes(checkpoint: Checkpoint) -> Iterator[tuple[str, Sequence[int]]]:
    """Of every weight of this model. Those of no file are known once transformers has built it."""
    if checkpoint.dummy:
        from epd.models.partial import shapes

        yield from shapes(checkpoint).items()
        return
    for header in weight_headers(checkpoint.path):
        for name, entry in header.items():
            if name == "__metadata__" or name.endswith(SCALES):
                continue  # see small_weights()
            if name.startswith(checkpoint.prefix):
                yield name, entry["shape"]


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
