"""Language models whose attention is not the plain kind: refused in words, never half computed.

Read from the configuration alone, so every role refuses them. What a configuration does not show
is found when the weights are loaded, see epd.models.heard.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from epd.errors import UnsupportedModel
from epd.models.sections import Section, text_section
from epd.models.storage import refuse_quantisation

FULL = "full_attention"
SLIDING = "sliding_attention"
"""Layers in which a token sees only the last ones before it."""

_ROPE_BY_LENGTH = ("dynamic", "longrope")
_CAPS = ("attn_logit_softcapping", "final_logit_softcapping")


def refuse_variants(config: Section, folder: Path) -> None:
    """UnsupportedModel for what would load and then answer wrongly, or crash."""
    text = text_section(config)
    refuse_quantisation(config, folder)
    for reason in (*_windows(text), *_scores(text), *_rotary(text)):
        raise UnsupportedModel(f"{folder} has {reason}, which is not supported")


def is_window(value: object) -> bool:
    """Is it a number of tokens that a token may see at most, with itself?"""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _windows(text: Section) -> Iterator[str]:
    """Layers that attend to less than everything before a token, or to more."""
    other = sorted({str(kind) for kind in text.get("layer_types") or ()} - {FULL, SLIDING})
    if other:
        yield f"layers of the types {', '.join(other)}"
    window = text.get("sliding_window")
    if window is not None and not is_window(window):
        yield f"a sliding window of {window} tokens"
    if text.get("attention_chunk_size") is not None:
        yield "attention in chunks"
    if text.get("use_bidirectional_attention"):
        yield "attention in both directions"


def _scores(text: Section) -> Iterator[str]:
    """What is done to attention scores or logits beside scaling."""
    for name in _CAPS:
        if text.get(name) is not None:
            yield f"a soft cap, {name} {text[name]}"


def _rotary(text: Section) -> Iterator[str]:
    """Packed sequences of many lengths share one computation of the rotary embedding."""
    for rope in _ropes(text.get("rope_parameters") or text.get("rope_scaling") or {}):
        if (kind := rope.get("rope_type", rope.get("type"))) in _ROPE_BY_LENGTH:
            yield f"rotary embeddings of type {kind}, which depend on a sequence's length"


def _ropes(parameters: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One for all layers, or one per type of layer."""
    yield parameters
    yield from (value for value in parameters.values() if isinstance(value, dict))
