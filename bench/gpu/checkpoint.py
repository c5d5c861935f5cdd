"""A checkpoint of a real model's shape with random weights, built where it is measured.

Tokenizer, processor and template are those of epd's own random checkpoints.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from bench.gpu.shape import Shape
from epd.models.partial import model_class
from epd.models.random_checkpoint import Sizes, build_random_checkpoint
from epd.models.spec import read_checkpoint

SHARD = "4GB"
IDS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
TEXT_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def build_once(folder: Path, shape: Shape, *, device: str) -> None:
    """The whole folder unless it is there, weights made on `device`.

    What lies beside it goes first: two models may not have room. OSError: neither has one.
    """
    if folder.is_dir():
        return
    if folder.parent.is_dir():
        for other in folder.parent.iterdir():
            shutil.rmtree(other)
    made = without_weights(folder.with_name(f"{folder.name}-made"), shape)
    _check_room(made, shape)
    whole = model_class(read_checkpoint(made))
    with torch.device(device):
        settings = whole.config_class.from_pretrained(made)
        model = whole._from_config(settings, dtype=getattr(torch, shape.dtype))
    model.save_pretrained(made, max_shard_size=SHARD)
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


def _check_room(folder: Path, shape: Shape) -> None:
    text, tower = shape.text, shape.tower
    values = text.layers * text.layer_weights + 2 * text.head_weights
    values += tower.depth * tower.layer_weights + tower.mergers * tower.merger_weights
    needed, free = values * shape.item_bytes, shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(f"{shape.name}: {needed} bytes of weights, {free} free in {folder}")
