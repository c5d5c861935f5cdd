"""Random weights of a model's real shapes, from its configuration alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from epd.models.adapter import Adapter
from epd.models.partial import load_part
from epd.models.sizes import num_weights
from epd.models.spec import Checkpoint, read_checkpoint
from epd.types import Modality
from tests.checkpoints import BUILDERS, build

WEIGHTS = "*.safetensors*"


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder without weights."""
    path = build("qwen2_5_vl", tmp_path_factory.mktemp("bare") / "tiny")
    for file in path.glob(WEIGHTS):
        file.unlink()
    return path


def parts(adapter: Adapter, modalities: tuple[Modality, ...]) -> tuple[tuple[str, ...], ...]:
    return adapter.tower_parts(modalities), adapter.language_parts()


@pytest.mark.parametrize("family", BUILDERS)
def test_every_family_has_the_shapes_and_buffers_of_its_real_weights(
    family: str, tmp_path: Path
) -> None:
    path = build(family, tmp_path / family)
    real = read_checkpoint(path)
    modalities, adapter = real.spec.modalities, real.adapter()
    pieces = parts(adapter, modalities)
    stored = [load_part(real, keep, device="cpu", dtype="float32") for keep in pieces]
    sizes = num_weights(real, modalities)
    for file in path.glob(WEIGHTS):
        file.unlink()
    dummy = read_checkpoint(path, dummy=True)
    assert num_weights(dummy, modalities) == sizes
    for keep, expected in zip(pieces, stored, strict=True):
        made = load_part(dummy, keep, device="cpu", dtype="float32")
        assert {name: (weight.shape, weight.dtype) for name, weight in made.named_parameters()} == {
            name: (weight.shape, weight.dtype) for name, weight in expected.named_parameters()
        }
        buffers = dict(made.named_buffers())
        assert buffers.keys() == dict(expected.named_buffers()).keys()
        for name, buffer in expected.named_buffers():
            assert torch.equal(buffers[name], buffer), name


def language(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    keep = checkpoint.adapter().language_parts()
    return dict(load_part(checkpoint, keep, device="cpu", dtype="bfloat16").named_parameters())


def test_all_who_load_a_weight_have_the_same_one(bare: Path) -> None:
    """Whatever they loaded before, and whatever else they keep of the model."""
    checkpoint = read_checkpoint(bare, dummy=True)
    first = language(checkpoint)
    whole = ("model", "lm_head")
    torch.manual_seed(7)
    again = dict(load_part(checkpoint, whole, device="cpu", dtype="bfloat16").named_parameters())
    assert first.keys() < again.keys()
    assert all(torch.equal(weight, again[name]) for name, weight in first.items())


def test_weights_differ_and_stay_finite_through_layers(bare: Path) -> None:
    found = language(read_checkpoint(bare, dummy=True))
    layers = [weight for name, weight in found.items() if name.endswith("q_proj.weight")]
    assert len(layers) > 1 and not torch.equal(layers[0], layers[1])
    assert all(0 < float(weight.float().std()) < 1 for weight in layers)
    norms = [weight for name, weight in found.items() if name.endswith("norm.weight")]
    assert norms and all(bool((weight == 1).all()) for weight in norms)


def test_random_and_real_weights_are_no_pool(bare: Path, tmp_path: Path) -> None:
    path = build("qwen2_5_vl", tmp_path / "tiny")
    real = read_checkpoint(path).fingerprint()
    assert read_checkpoint(path, dummy=True).fingerprint() != real
    assert read_checkpoint(bare, dummy=True).fingerprint()["weights"] == "random"
