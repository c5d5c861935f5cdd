"""A checkpoint of a real model's shape without weights: random ones are made at load.

Tokenizer, processor and template are those of epd's own random checkpoints.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.gpu.shape import Shape
from epd.models.random_checkpoint import Sizes, build_random_checkpoint

IDS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
TEXT_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def build_once(folder: Path, shape: Shape) -> None:
    """The folder unless it is there."""
    if not folder.is_dir():
        made = without_weights(folder.with_name(f"{folder.name}-made"), shape)
        made.rename(folder)


def without_weights(folder: Path, shape: Shape) -> Path:
    """The folder with everything but weights."""
    _small(folder, shape)
    config = _config(shape, json.loads((folder / "config.json").read_text()))
    for file in (*folder.glob("*.safetensors"), *folder.glob("*.index.json")):
        file.unlink()
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    return folder


def _small(folder: Path, shape: Shape) -> None:
    """Every file of a checkpoint, around a model that is thrown away."""
    known = shape.config["text_config"]["bos_token_id"]
    sizes = Sizes(
        vocab=shape.text.vocab,
        known_tokens=known,
        max_context=shape.config["text_config"]["max_position_embeddings"],
        max_image_tokens=shape.max_image_tokens,
        dtype=shape.dtype,
    )
    build_random_checkpoint(folder, family=shape.family, sizes=sizes)


def _config(shape: Shape, built: dict[str, Any]) -> dict[str, Any]:
    """The published one with the token ids of the tokenizer that is there."""
    config = json.loads(json.dumps(shape.config))
    config |= {key: built[key] for key in IDS}
    config["text_config"] |= {key: built["text_config"][key] for key in TEXT_IDS}
    found: dict[str, Any] = config
    return found
