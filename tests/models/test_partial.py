"""Half a model is read from a whole checkpoint; what is missing or odd is not overlooked."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from epd.errors import ConfigError
from epd.models.partial import load_part
from epd.models.random_checkpoint import Sizes, build_random_checkpoint
from epd.models.spec import Checkpoint, read_checkpoint

TOWERS = ("model.visual",)
LANGUAGE = ("model.language_model", "lm_head")


def load(checkpoint: Checkpoint, keep: tuple[str, ...]) -> Any:
    return load_part(checkpoint, keep, device="cpu", dtype="float32")


def with_weights(path: Path, folder: Path, change: Any) -> Checkpoint:
    """A copy of the checkpoint whose weights went through `change`."""
    shutil.copytree(path, folder)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return read_checkpoint(folder)


def test_the_halves_are_the_whole(checkpoint: Checkpoint) -> None:
    towers = dict(load(checkpoint, TOWERS).named_parameters())
    language = dict(load(checkpoint, LANGUAGE).named_parameters())
    whole = dict(load(checkpoint, (*TOWERS, *LANGUAGE)).named_parameters())
    assert not towers.keys() & language.keys()
    assert (towers | language).keys() == whole.keys()
    assert all(name.startswith("model.visual.") for name in towers)
    for name, weight in (towers | language).items():
        assert torch.equal(weight, whole[name]) and not weight.is_meta, name


@pytest.mark.parametrize("keep", [TOWERS, LANGUAGE])
def test_halves_of_a_checkpoint_with_tied_embeddings(
    keep: tuple[str, ...], family: str, tmp_path: Path
) -> None:
    build_random_checkpoint(tmp_path, family=family, sizes=Sizes(tied=True))
    checkpoint = read_checkpoint(tmp_path)
    model = load(checkpoint, keep)
    assert not any(weight.is_meta for weight in model.parameters())


@pytest.mark.parametrize(
    ("family", "stored", "module"),
    [
        ("qwen2_5_vl", "visual.merger.mlp.0.weight", "model.visual.merger.mlp.0.weight"),
        ("qwen3_vl", *["model.visual.deepstack_merger_list.1.norm.bias"] * 2),
    ],
    indirect=["family"],
    scope="session",
)
def test_a_missing_weight_is_named(stored: str, module: str, path: Path, tmp_path: Path) -> None:
    """transformers alone would fill it with random numbers and go on."""
    checkpoint = with_weights(path, tmp_path / "c", lambda weights: weights.pop(stored))
    with pytest.raises(ConfigError, match=f"lacks 1 weights: {re.escape(module)}"):
        load(checkpoint, TOWERS)
    load(checkpoint, LANGUAGE)


@pytest.mark.parametrize("keep", [TOWERS, LANGUAGE])
def test_a_weight_that_belongs_nowhere_is_named(
    keep: tuple[str, ...], path: Path, tmp_path: Path
) -> None:
    def add(weights: dict[str, torch.Tensor]) -> None:
        weights["adapter.weight"] = torch.zeros(2, 2)

    checkpoint = with_weights(path, tmp_path / "c", add)
    with pytest.raises(ConfigError, match="has unknown 1 weights: adapter"):
        load(checkpoint, keep)


def test_a_weight_of_another_shape_is_refused(path: Path, tmp_path: Path) -> None:
    def cut(weights: dict[str, torch.Tensor]) -> None:
        weights["lm_head.weight"] = weights["lm_head.weight"][:5].clone()

    with pytest.raises(ConfigError, match="cannot load"):
        load(with_weights(path, tmp_path / "c", cut), LANGUAGE)


def test_a_damaged_file_is_refused(path: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(path, tmp_path / "c"))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ConfigError, match="cannot load"):
        load(read_checkpoint(folder), TOWERS)


@pytest.mark.parametrize(
    "family",
    ["qwen3_vl", pytest.param("qwen2_5_vl", marks=pytest.mark.slow)],
    indirect=True,
    scope="session",
)
def test_each_half_costs_its_own_weights_only(family: str, tmp_path: Path) -> None:
    """Measured peak memory of a checkpoint of about 256 MiB, every page of the weights touched.

    The slack, for the model's Python objects and the loader, is half of the smaller half.
    """
    sizes = Sizes(
        hidden=768,
        intermediate=2048,
        heads=12,
        vision_hidden=768,
        vision_intermediate=2048,
        vision_heads=12,
    )
    build_random_checkpoint(tmp_path, family=family, sizes=sizes)
    done = subprocess.run(
        [sys.executable, "-m", "tests.models.measure_memory", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    used = json.loads(done.stdout.splitlines()[-1])
    slack = 48 << 20
    for part in ("towers", "language", "whole"):
        peak, weights = used[part]["peak"], used[part]["weights"]
        assert weights <= peak < weights + slack, used
    assert min(used[part]["weights"] for part in ("towers", "language")) > 2 * slack
    halves = used["towers"]["weights"] + used["language"]["weights"]
    assert halves == used["whole"]["weights"]
