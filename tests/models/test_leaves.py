"""Leaf modules of ours compute what those of transformers and torch compute."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from epd.models import packed
from epd.models.language import LanguageModel, load_language
from epd.models.leaves import replace_leaves, weight_bytes
from epd.models.packed import JointLinear, PackedLinear
from epd.models.partial import load_part
from epd.models.patch_product import PatchProduct
from epd.models.random_checkpoint import Sizes, build_random_checkpoint
from epd.models.rms_norm import RmsNorm
from epd.models.spec import Checkpoint, read_checkpoint
from epd.models.torchvision_shim import prepare_torchvision
from epd.models.towers import load_towers
from epd.types import Modality
from tests.checkpoints import FAMILIES, build
from tests.models import stand_in

ROWS = [1, 2, 7, 40]


class Siblings(nn.Module):
    """Three linear modules that transformers calls with one input, and one of its own."""

    def __init__(self, dtype: torch.dtype, *, bias: bool = True) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.q_proj = nn.Linear(48, 64, bias=bias)
        self.k_proj = nn.Linear(48, 32, bias=bias)
        self.v_proj = nn.Linear(48, 32, bias=bias)
        self.o_proj = nn.Linear(64, 48, bias=False)
        self.to(dtype).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        q = self.q_proj(x)
        return q, self.k_proj(x), self.v_proj(x), self.o_proj(q)


@pytest.fixture(params=[True, False], ids=["bf16 instructions", "none"])
def instructions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """oneDNN computes bfloat16 with and without them, so both ways can be taken anywhere."""
    if request.param and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("oneDNN has no bfloat16 on this CPU")
    monkeypatch.setattr(packed, "has_bf16_instructions", lambda: request.param)
    return bool(request.param)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("leaves") / request.param
    return read_checkpoint(build(request.param, folder))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_products_equal_plain_ones(
    dtype: torch.dtype, rows: int, bias: bool, instructions: bool
) -> None:
    """Within one unit of bfloat16, or of what torch's own sums in float32 may lose."""
    model = Siblings(dtype, bias=bias)
    exact = Siblings(dtype, bias=bias).double()
    replace_leaves(model, single_rows=True)
    x = torch.randn(1, rows, 48).to(dtype)
    near = 1e-5 if dtype is torch.float32 else 2**-7
    q, k, v, o = model(x)
    assert q.dtype == dtype
    for found, expected in zip((q, k, v), exact(x.double()), strict=False):
        torch.testing.assert_close(found.double(), expected, atol=near, rtol=near)
    torch.testing.assert_close(o.double(), exact.o_proj(q.double()), atol=near, rtol=near)


def test_one_product_serves_all_siblings(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Siblings(torch.float32)
    replace_leaves(model, single_rows=True)
    calls = []
    forward = PackedLinear.forward

    def counted(self: PackedLinear, x: torch.Tensor) -> torch.Tensor:
        calls.append(self)
        return forward(self, x)

    monkeypatch.setattr(PackedLinear, "forward", counted)
    model(torch.randn(1, 5, 48))
    assert len(calls) == 2


def test_siblings_given_other_inputs_still_answer_for_their_own() -> None:
    """No model does so; a product that was remembered too long would be a wrong answer."""
    model, plain = Siblings(torch.float32), Siblings(torch.float32)
    replace_leaves(model, single_rows=True)
    x, y = torch.randn(2, 1, 3, 48)
    for name, given in (("q_proj", x), ("k_proj", y), ("q_proj", y), ("q_proj", x), ("v_proj", x)):
        torch.testing.assert_close(getattr(model, name)(given), getattr(plain, name)(given))


def test_a_shared_product_is_forgotten_when_all_have_taken_it() -> None:
    model = Siblings(torch.float32)
    replace_leaves(model, single_rows=True)
    x = torch.randn(1, 3, 48)
    gone = weakref.ref(x)
    model(x)
    del x
    assert gone() is None


def test_unequal_siblings_stay_apart() -> None:
    model, plain = Siblings(torch.float32), Siblings(torch.float32)
    for one in (model, plain):
        one.k_proj = nn.Linear(48, 32, bias=False).requires_grad_(False)
    plain.k_proj.load_state_dict(model.k_proj.state_dict())
    replace_leaves(model, single_rows=True)
    assert isinstance(model.q_proj, PackedLinear)
    x = torch.randn(1, 3, 48)
    torch.testing.assert_close(model(x), plain(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_norms_equal_those_of_transformers(dtype: torch.dtype) -> None:
    prepare_torchvision()
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLRMSNorm

    plain = Qwen2_5_VLRMSNorm(96, eps=1e-3)
    nn.init.normal_(plain.weight).requires_grad_(False)
    plain.to(dtype)
    x = torch.randn(2, 500, 96).to(dtype) * 0.1
    kept = x.clone()
    found, expected = RmsNorm(plain.weight, plain.variance_epsilon)(x), plain(x)
    near = 1e-6 if dtype is torch.float32 else 0.01
    torch.testing.assert_close(found, expected, atol=near, rtol=near)
    # The same roundings: what differs is the last bit of a sum, which is seldom seen in 16 bits.
    assert dtype is torch.float32 or (found != expected).float().mean() < 0.001
    assert torch.equal(x, kept)


def plain_language(checkpoint: Checkpoint, dtype: str) -> LanguageModel:
    """As load_language makes it, with transformers' own leaves."""
    stand_in.register()
    adapter = checkpoint.adapter()
    model = load_part(checkpoint, adapter.language_parts(), device="cpu", dtype=dtype)
    adapter.decoder(model).config._attn_implementation = stand_in.NAME
    return LanguageModel(adapter, model)


def language(checkpoint: Checkpoint, dtype: str) -> LanguageModel:
    with stand_in.attention():
        return load_language(checkpoint, device="cpu", dtype=dtype)


def logits(model: LanguageModel, num: int = 24) -> torch.Tensor:
    ids = torch.arange(num) * 7 % 1000
    positions = torch.arange(num).expand(3, -1)
    hidden = model.forward(model.embed(ids), positions, stand_in.Packed([num]))
    return model.logits(hidden).float()


def test_every_leaf_of_a_language_model_is_replaced(family: Checkpoint) -> None:
    model = language(family, "float32")
    modules: list[Any] = [model._head, *model._decoder.modules()]
    kinds = {type(module).__name__ for module in modules if not list(module.children())}
    assert {"PackedLinear", "RmsNorm"} <= kinds
    assert not {kind for kind in kinds if "Linear" in kind or "Norm" in kind} - {
        "PackedLinear",
        "RmsNorm",
    }
    assert sum(isinstance(module, JointLinear) for module in modules) == 5 * model.num_layers


def test_logits_in_bfloat16_are_as_good_as_without(family: Checkpoint, instructions: bool) -> None:
    exact = logits(plain_language(family, "float32"))
    plain = (logits(plain_language(family, "bfloat16")) - exact).norm()
    ours = (logits(language(family, "bfloat16")) - exact).norm()
    assert ours < 1.2 * plain


def test_a_swapped_sibling_would_be_seen(family: Checkpoint) -> None:
    """Negative control: the comparisons of logits and tokens notice a wrong column."""
    model = language(family, "float32")
    right = logits(model)
    attention = model._decoder.layers[1].self_attn
    attention.k_proj, attention.v_proj = attention.v_proj, attention.k_proj
    assert not torch.allclose(logits(model), right, rtol=1e-2, atol=1e-2)


def test_bytes_count_every_copy(family: Checkpoint, instructions: bool) -> None:
    """float32 has one copy. bfloat16 has a second one, twice as large, where it is computed so."""
    plain = load_part(family, family.adapter().language_parts(), device="cpu", dtype="bfloat16")
    linear = sum(
        weight.nbytes
        for module in plain.modules()
        if isinstance(module, nn.Linear)
        for weight in module.parameters()
    )
    once = weight_bytes(plain)
    assert language(family, "float32").weight_bytes == 2 * once
    copies = 0 if instructions else 2
    assert language(family, "bfloat16").weight_bytes == once + copies * linear


def test_towers_hold_no_copy_for_single_rows(
    family: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "has_bf16_instructions", lambda: False)
    towers = load_towers(family, modalities=(Modality.IMAGE,), device="cpu", dtype="bfloat16")
    kept = [module for module in towers._model.modules() if isinstance(module, PackedLinear)]
    assert kept and all(module._few is None for module in kept)


class SomePatchEmbed(nn.Module):
    """As transformers' are."""

    def __init__(self, **more: Any) -> None:
        super().__init__()
        torch.manual_seed(2)
        size = (2, 4, 4)
        self.proj = nn.Conv3d(3, 32, **{"kernel_size": size, "stride": size, **more})
        self.to(torch.bfloat16).requires_grad_(False)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        patches = patches.view(-1, 3, 2, 4, 4).to(self.proj.weight.dtype)
        out: torch.Tensor = self.proj(patches).view(-1, 32)
        return out


def replaced(model: SomePatchEmbed) -> nn.Module:
    """What stands in place of the convolution."""
    replace_leaves(nn.ModuleList([model]), single_rows=False)
    return model.proj


@pytest.mark.parametrize("bias", [True, False])
def test_patches_are_embedded_by_a_product(bias: bool) -> None:
    model, exact = SomePatchEmbed(bias=bias), SomePatchEmbed(bias=bias).float()
    exact.proj.weight.data = model.proj.weight.float()
    patches = torch.randn(7, 96).bfloat16()
    assert isinstance(replaced(model), PatchProduct)
    right = exact(patches.float())
    torch.testing.assert_close(model(patches).float(), right, atol=2**-7, rtol=2**-7)
    assert not torch.allclose(model(patches.roll(1, 1)).float(), right, atol=2**-7)


@pytest.mark.parametrize("more", [{"stride": (2, 2, 2)}, {"padding": 1}, {"dilation": 2}])
def test_other_convolutions_stay(more: dict[str, Any]) -> None:
    model = SomePatchEmbed(**more)
    assert isinstance(replaced(model), nn.Conv3d)


def test_a_packed_head_leaves_the_embedding_it_shared(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(build_random_checkpoint(tmp_path, sizes=Sizes(tied=True)))
    model = language(checkpoint, "float32")
    untied = language(read_checkpoint(build(FAMILIES[0], tmp_path / "untied")), "float32")
    assert model.weight_bytes == untied.weight_bytes
    assert model.embed(torch.arange(9)).shape == (9, model.hidden_size)


def test_what_cannot_be_packed_is_left_alone() -> None:
    model = Siblings(torch.float16)
    replace_leaves(model, single_rows=True)
    assert type(model.q_proj) is nn.Linear and type(model.o_proj) is nn.Linear
