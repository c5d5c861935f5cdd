"""Finds the parts of a config.json: of the language model and of the towers, however nested.

A file need not say what is its class's default. Those defaults that are read without transformers
stand here; a test compares them with the classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Section = dict[str, Any]

DEFAULTS: Mapping[str, Section] = {
    "llama": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32000,
        "max_position_embeddings": 2048,
    },
    "mistral": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 32000,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
    },
    "qwen2": {
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 151936,
        "max_position_embeddings": 32768,
        "use_sliding_window": False,
    },
    "qwen3": {
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "head_dim": 128,
        "vocab_size": 151936,
        "max_position_embeddings": 32768,
        "use_sliding_window": False,
    },
}
"""Of language models, by model_type: what published files leave out."""

_LANGUAGE = {
    "internvl": "qwen2",
    "llava": "llama",
    "llava_next": "llama",
    "llava_onevision": "qwen2",
    "qwen2_audio": "qwen2",
}
"""The language model of a whole model that does not name it."""


def text_section(config: Section) -> Section:
    """Values of the language model: its own part, else the top of older flat files, else defaults.

    A value that is null there is null here, unless the top knows better.
    """
    text = config.get("text_config") or {}
    top = {key: value for key, value in config.items() if text.get(key) is None}
    known = {key: value for key, value in top.items() if value is not None}
    kind = text.get("model_type") or _LANGUAGE.get(str(config.get("model_type")), "")
    return {**DEFAULTS.get(kind, {}), **text, **known}


def tower_sections(config: Section) -> list[Section]:
    """Of everything that encodes a modality."""
    return [
        value
        for key, value in config.items()
        if key.endswith("_config") and key != "text_config" and isinstance(value, dict)
    ]
