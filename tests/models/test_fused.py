"""What replaces transformers' modules on a card computes what they compute."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from epd.attention import (
    ATTENTION,
    AttentionBackend,
    PagedBatch,
    PagedSequence,
    SdpaBackend,
    kernels,
    register,
)
from epd.attention.kernels import rotary
from epd.attention.kernels.rotary import rotate_patches
from epd.attention.triton import TritonBackend
from epd.models.fused import FusedLayer, FusedRmsNorm, fuse, fuse_towers, join
from epd.models.gated import GatedMlp
from epd.models.language import LanguageModel
from epd.models.packed import JointLinear
from epd.models.partial import load_part
from epd.models.spec import Checkpoint, read_checkpoint
from epd.models.torchvision_shim import prepare_torchvision
from epd.models.towers import load_towers
from epd.types import Modality
from tests.checkpoints import BUILDERS, FAMILIES, build
from tests.models.media import prepared


@pytest.fixture(autouse=True)
def interpreted(request: pytest.FixtureRequest) -> None:
    if not kernels.interpreted() and request.node.get_closest_marker("gpu") is None:
        pytest.skip("kernels are compiled here")


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return read_checkpoint(build(request.param, tmp_path_factory.mktemp("fused") / request.param))


def load(checkpoint: Checkpoint, *, fused: bool, device: str = "cpu") -> LanguageModel:
    """As a worker with a card loads it, but onto the CPU unless told."""
    prepare_torchvision()
    register()
    adapter = checkpoint.adapter()
    model = load_part(checkpoint, adapter.language_parts(), device=device, dtype="float32")
    decoder = adapter.decoder(model)
    decoder.config._attn_implementation = ATTENTION
    if fused:
        fuse(model, decoder)
    return LanguageModel(adapter, model)


@torch.inference_mode()
def hidden(
    model: LanguageModel, backend: AttentionBackend[Any], *, steps: int = 3
) -> list[torch.Tensor]:
    """Of a prompt, then its decodes beside another prompt and that one's."""
    shape = (model.num_layers, 6 * 16, model.kv_heads, model.head_dim)
    keys, values = torch.full((2, *shape), torch.nan, device=model.device)
    first, second = [2, 0], [5]
    found = []
    for sequences in (
        [PagedSequence(4, 4, first)],
        [PagedSequence(1, 5, first), PagedSequence(2, 2, second)],
        [PagedSequence(1, 6, first), PagedSequence(1, 3, second)],
    )[:steps]:
        batch = PagedBatch(tuple(sequences), keys, values, 16)
        at = [torch.arange(s.kv_len - s.num_new, s.kv_len) for s in sequences]
        positions = torch.cat(at).double().to(model.device)
        embeds = model.embed((positions.long() * 37 + len(sequences)) % 200)
        deepstack = None
        if model.deepstack_levels:
            places = torch.tensor([1, 0][: len(embeds)], device=model.device)
            rows = embeds[places].expand(model.deepstack_levels, -1, -1) / 3
            deepstack = places, list(rows)
            positions = positions.expand(3, -1)
        out = model.forward(embeds, positions, backend.bind(batch), deepstack)
        found.append(out.cpu())
    return found


def test_a_fused_model_computes_what_transformers_computes(family: Checkpoint) -> None:
    plain, fused = load(family, fused=False), load(family, fused=True)
    layer = fused._decoder.layers[0]
    assert type(layer) is FusedLayer and type(layer.mlp) is GatedMlp
    gate_up: Any = layer.mlp.gate_up
    assert type(layer.self_attn.q_proj) is JointLinear
    assert type(fused._decoder.norm) is FusedRmsNorm
    expected = hidden(plain, SdpaBackend())
    for ours, theirs in zip(hidden(fused, TritonBackend()), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=2e-5)
    gate_up.weight[0] += 0.1
    (other,) = hidden(fused, SdpaBackend(), steps=1)
    assert (other - expected[0]).abs().max() > 1e-3  # negative control


VISION = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen2_5_omni", "qwen3_omni_moe")


@pytest.mark.parametrize("name", VISION)
def test_towers_turn_queries_and_keys_in_one_kernel(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once in every block; towers beside them, of the same family, as before."""
    turned: list[int] = []
    ahead = True

    def rotate(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> Any:
        turned.append(len(q))
        return rotate_patches(q, k, cos, sin if ahead else -sin)

    monkeypatch.setattr(rotary, "rotate_patches", rotate)
    checkpoint = read_checkpoint(build(name, tmp_path / name))
    plain, fused = (
        load_towers(checkpoint, modalities=(Modality.IMAGE,), device="cpu", dtype="float32")
        for _ in range(2)
    )
    fuse_towers(fused._model)
    items = prepared(plain)
    expected = plain.encode(items)
    assert not turned
    for ours, theirs in zip(fused.encode(items), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=2e-5)
    blocks = [m for m in fused._model.modules() if type(m).__name__.endswith("VisionAttention")]
    assert len(turned) == len(blocks) > 1
    ahead = False
    assert not torch.allclose(fused.encode(items)[0], expected[0], atol=1e-3)  # negative control


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl", "qwen2_5_omni"])
def test_fused_towers_compute_what_transformers_compute(name: str, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(build(name, tmp_path / name))
    plain, fused = (
        load_towers(
            checkpoint, modalities=checkpoint.spec.modalities, device="cpu", dtype="float32"
        )
        for _ in range(2)
    )
    fuse_towers(fused._model)
    items = prepared(plain)
    expected = plain.encode(items)
    for ours, theirs in zip(fused.encode(items), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=2e-5)
    replaced = [m for m in fused._model.modules() if isinstance(m, FusedRmsNorm | GatedMlp)]
    assert bool(replaced) is (name != "qwen3_vl")  # whose tower has other norms, and no gate
    for norm in replaced:
        if isinstance(norm, FusedRmsNorm):
            norm.weight.mul_(2)
    if replaced:  # negative control
        assert not torch.allclose(fused.encode(items)[0], expected[0], atol=1e-3)


def test_a_backend_that_does_not_rotate_serves_it_too(family: Checkpoint) -> None:
    (expected,) = hidden(load(family, fused=False), SdpaBackend(), steps=1)
    (found,) = hidden(load(family, fused=True), SdpaBackend(), steps=1)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)


def test_the_weights_held_are_as_many_as_before(family: Checkpoint) -> None:
    assert load(family, fused=True).weight_bytes == load(family, fused=False).weight_bytes


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(BUILDERS) - set(FAMILIES)))
def test_every_family(name: str, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(build(name, tmp_path / name))
    expected = hidden(load(checkpoint, fused=False), SdpaBackend())
    for ours, theirs in zip(
        hidden(load(checkpoint, fused=True), TritonBackend()), expected, strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=2e-5)


@pytest.mark.gpu
@pytest.mark.simulated
def test_a_fused_model_on_a_card(family: Checkpoint) -> None:
    expected = hidden(load(family, fused=False), SdpaBackend())
    fused = load(family, fused=True, device="cuda")
    for backend in (TritonBackend(), SdpaBackend()):
        for ours, theirs in zip(hidden(fused, backend), expected, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


class Three(nn.Module):
    """Siblings with a bias, as Qwen2.5's are."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(8, n) for n in (6, 4, 4))

    def forward(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        return (each(x) for each in (self.q_proj, self.k_proj, self.v_proj))


def test_siblings_with_a_bias_become_one_product() -> None:
    x = torch.randn(3, 8)
    joined = Three()
    join(joined, ("q_proj", "k_proj", "v_proj"))
    assert isinstance(joined.get_submodule("k_proj"), JointLinear)
    for ours, theirs in zip(joined(x), Three()(x), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("odd", ["hooked", "half", "no bias", "missing", "other"])
def test_siblings_that_are_not_of_one_kind_stay(odd: str) -> None:
    """A hook may be what gathers a shard; it would never run."""
    model = Three()
    if odd == "hooked":
        model.k_proj.register_forward_hook(lambda *_: None)
    elif odd == "half":
        model.k_proj.half()
    elif odd == "no bias":
        model.k_proj = nn.Linear(8, 4, bias=False)
    elif odd == "missing":
        model.k_proj = None  # type: ignore[assignment]
    else:
        model.k_proj = nn.Sequential(nn.Linear(8, 4))  # type: ignore[assignment]
    join(model, ("q_proj", "k_proj", "v_proj"))
    assert type(model.q_proj) is nn.Linear
