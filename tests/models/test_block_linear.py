"""Weights that stay in FP8 say what their dequantised twins say, joined or apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from epd.attention import kernels, register
from epd.config import load_config
from epd.models import storage
from epd.models.block_linear import BlockLinear
from epd.models.block_products import compile_products
from epd.models.fused import fuse_towers, join
from epd.models.language import LanguageModel, load_language
from epd.models.leaves import weight_bytes
from epd.models.packed import JointLinear
from epd.models.partial import load_part
from epd.models.sizes import small_weights
from epd.models.spec import Checkpoint, read_checkpoint
from epd.models.torchvision_shim import prepare_torchvision
from epd.models.towers import Towers, load_towers
from epd.workers.memory import needs_of
from tests.checkpoints import build
from tests.fp8 import dequantised, quantised, twins
from tests.models.in_blocks import greedy, load
from tests.models.pictures import picture, prepare

NEAR, ROUNDED = 5e-3, 4e-2
"""Of the norm: a result in bfloat16, and rows of three fraction bits."""

NAMES = ("q_proj", "k_proj", "v_proj")


@pytest.fixture(autouse=True)
def interpreted(request: pytest.FixtureRequest) -> None:
    if not kernels.interpreted() and request.node.get_closest_marker("gpu") is None:
        pytest.skip("kernels are compiled here")


def linear(n: int, k: int, *, bias: bool = True) -> BlockLinear:
    weight, factors = quantised(torch.randn(n, k), 128)
    return BlockLinear(weight, factors, torch.randn(n) if bias else None)


def plain(small: BlockLinear) -> nn.Linear:
    made = nn.Linear(small.in_features, small.out_features, bias=small.bias is not None)
    made.weight.data = dequantised(small.weight, small.weight_scale_inv, 128)
    if small.bias is not None:
        made.bias.data = small.bias.data
    return made


class Siblings(nn.Module):
    def __init__(self, make: Callable[[int], nn.Module], sizes: tuple[int, ...]) -> None:
        super().__init__()
        for name, size in zip(NAMES, sizes, strict=True):
            setattr(self, name, make(size))


@pytest.mark.parametrize(
    ("sizes", "one"),
    [((256, 128, 128), True), ((128, 256, 70), True), ((256, 70, 128), False)],
)
@torch.inference_mode()
def test_siblings_are_joined_where_their_blocks_meet(sizes: tuple[int, ...], one: bool) -> None:
    """Only the last may end within a block."""
    torch.manual_seed(0)
    siblings = Siblings(lambda n: linear(n, 200), sizes)
    apart = [plain(siblings.get_submodule(name)) for name in NAMES]  # type: ignore[arg-type]
    join(siblings, NAMES)
    x = torch.randn(2, 3, 200)
    for name, alone in zip(NAMES, apart, strict=True):
        module = siblings.get_submodule(name)
        assert type(module) is (JointLinear if one else BlockLinear)
        torch.testing.assert_close(module(x), alone(x), atol=1e-4, rtol=1e-5)


def test_one_of_another_kind_leaves_all_apart() -> None:
    siblings = Siblings(lambda n: linear(n, 40, bias=False), (128, 128, 128))
    siblings.k_proj = plain(siblings.get_submodule("k_proj"))  # type: ignore[arg-type]
    join(siblings, NAMES)
    assert type(siblings.q_proj) is BlockLinear


def test_each_size_of_product_is_compiled_once_for_each_height_of_its_tiles() -> None:
    from epd.attention.kernels.blocks import FEW_ROWS, tiles

    siblings = Siblings(lambda n: linear(n, 40, bias=False), (128, 128, 70))
    ran: list[tuple[int, int]] = []
    for name in NAMES:
        module = siblings.get_submodule(name)
        module.register_forward_hook(lambda _, args, out: ran.append((out.shape[1], len(args[0]))))
    compile_products(siblings, torch.bfloat16)
    heights = [rows for n, rows in ran if n == 70]
    assert len(ran) == len(set(ran)) == 2 * len(heights)

    def shape(rows: int) -> tuple[int, int]:
        return tiles(rows, 4096, 4096, cores=132, item=2 if rows <= FEW_ROWS else 1)[:2]

    assert {shape(rows) for rows in heights} == {shape(rows) for rows in range(1, 300)}


def test_weights_that_transformers_quantised_give_what_it_dequantises() -> None:
    prepare_torchvision()
    from transformers import FineGrainedFP8Config
    from transformers.quantizers.quantizer_finegrained_fp8 import FineGrainedFP8HfQuantizer

    torch.manual_seed(0)
    theirs = FineGrainedFP8HfQuantizer(FineGrainedFP8Config(weight_block_size=(128, 128)))
    quantise = theirs.get_quantize_ops()
    stored = quantise.convert({"weight": torch.randn(256, 384) * torch.logspace(-3, 2, 384)})
    weight = quantise.reverse_op.convert(stored)["weight"]
    ours = BlockLinear(stored["weight"], stored["weight_scale_inv"], None)
    x = torch.randn(5, 384)
    torch.testing.assert_close(ours(x), x @ weight.T, atol=1e-3, rtol=1e-4)


def off(small: nn.Module, apart: nn.Linear, x: torch.Tensor) -> float:
    """The error's norm as a share of the result's."""
    expected = apart(x.float().cpu())
    return float((small(x).float().cpu() - expected).norm() / expected.norm())


@torch.inference_mode()
def test_many_rows_in_16_bits_are_rounded_and_few_are_not() -> None:
    torch.manual_seed(0)
    small = linear(140, 300)
    apart, x = plain(small), torch.randn(65, 300)
    assert off(small, apart, x[:64].bfloat16()) < NEAR < off(small, apart, x.bfloat16()) < ROUNDED
    assert off(small, apart, x) < 1e-5  # who computes in float32 compares answers


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Checkpoint]:
    """In FP8, and the same weights written out."""
    small, other = twins(build("qwen3_vl", tmp_path_factory.mktemp("fp8") / "t"), 128)
    return read_checkpoint(small), read_checkpoint(other)


@torch.inference_mode()
def test_a_checkpoint_says_the_same_both_ways(pair: tuple[Checkpoint, Checkpoint]) -> None:
    small, other = load(pair[0], keep=True), load(pair[0], keep=False)
    attention, mlp = small._decoder.layers[0].self_attn, small._decoder.layers[0].mlp
    assert type(attention.o_proj) is type(mlp.down_proj) is BlockLinear
    assert mlp.down_proj.weight.dtype is torch.float8_e4m3fn
    prompt = [(37 * n + 5) % 200 for n in range(20)]
    found, logits = greedy(small, prompt, 6)
    expected, near = greedy(other, prompt, 6)
    torch.testing.assert_close(logits, near, atol=1e-4, rtol=1e-4)
    assert found == expected == greedy(load(pair[1], keep=False), prompt, 6)[0]
    for layer in small._decoder.layers:
        layer.mlp.down_proj.weight_scale_inv.fill_(1.0)
    assert (greedy(small, prompt, 1)[1] - near).abs().max() > 1e-2  # negative control


def test_memory_held_is_a_byte_for_each_value(pair: tuple[Checkpoint, Checkpoint]) -> None:
    small, other = (load(pair[0], keep=keep) for keep in (True, False))
    modules = [m for m in small._decoder.modules() if isinstance(m, BlockLinear)]
    saved = sum(3 * m.weight.numel() - m.weight_scale_inv.nbytes for m in modules)
    assert len(modules) >= 4 * small.num_layers - 1 and saved > 0
    assert small.weight_bytes == other.weight_bytes - saved


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen3_vl_moe"])
def test_random_weights_stay_in_fp8_where_real_ones_do(family: str, tmp_path: Path) -> None:
    """And a memory plan counts the same for both."""
    path = twins(build(family, tmp_path / "t"), 128)[0]
    real = read_checkpoint(path)
    stored, sizes = load(real, keep=True), small_weights(real)
    for file in path.glob("*.safetensors*"):
        file.unlink()
    dummy = read_checkpoint(path, dummy=True)
    assert small_weights(dummy) == sizes
    made = load(dummy, keep=True)
    assert shapes(made) == shapes(stored)
    tokens, logits = greedy(made, [5, 6, 7], 2)
    assert len(tokens) == 2 and bool(logits.isfinite().all())


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_omni_moe"])
@torch.inference_mode()
def test_towers_say_the_same_both_ways(family: str, tmp_path: Path) -> None:
    """With blocks that are wider than their heads; convolutions and tables stay plain."""
    small, plain = map(read_checkpoint, twins(build(family, tmp_path / "t"), 128, towers=True))
    modalities = small.spec.modalities
    expected = load_towers(plain, modalities=modalities, device="cpu", dtype="float32")
    adapter = small.adapter()
    parts = adapter.tower_parts(modalities)
    model = load_part(
        small,
        parts,
        device="cpu",
        dtype="float32",
        keep_blocks=True,
        attn_implementation="sdpa",
    )
    fuse_towers(model)
    found = Towers(adapter, model, adapter.load_processors(modalities))
    assert found.dtype is torch.float32
    kept = [module for module in model.modules() if isinstance(module, BlockLinear)]
    assert len(kept) > 10 and found.weight_bytes < 0.7 * expected.weight_bytes
    (item,) = [prepare(found, picture(90, 60))]
    (rows,), (wanted,) = found.encode([item]), expected.encode([item])
    torch.testing.assert_close(rows, wanted, atol=2e-4, rtol=2e-4)
    for module in kept:
        module.weight_scale_inv.mul_(1.5)
    assert not torch.allclose(found.encode([item])[0], wanted, atol=1e-2)  # negative control


@pytest.mark.parametrize("dummy", [False, True])
def test_a_plan_counts_towers_in_fp8(
    dummy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "find_spec", lambda name: name)
    path, _ = twins(build("qwen2_5_vl", tmp_path / "t"), 128, towers=True)
    checkpoint = read_checkpoint(path, dummy=dummy)
    parts = checkpoint.adapter().tower_parts(checkpoint.spec.modalities)
    model = load_part(checkpoint, parts, device="cpu", dtype="bfloat16", keep_blocks=True)
    config = load_config(None, ("dtype=bfloat16",))
    needs = needs_of("encode", config, checkpoint, device="cuda")
    counted = next(need.num_bytes for need in needs if need.name == "tower weights")
    assert counted == weight_bytes(model)


def shapes(model: LanguageModel) -> dict[str, tuple[torch.Size, torch.dtype]]:
    weights = model._decoder.named_parameters()
    return {name: (weight.shape, weight.dtype) for name, weight in weights}


@pytest.mark.gpu
@torch.inference_mode()
def test_a_worker_on_a_card_keeps_them(pair: tuple[Checkpoint, Checkpoint]) -> None:
    register()
    small, other = (
        load_language(pair[0], device="cuda", dtype="bfloat16"),
        load(pair[0], keep=False),
    )
    for ours, theirs in zip(small._decoder.layers, other._decoder.layers, strict=True):
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            product, apart = ours.get_submodule(name), theirs.get_submodule(name)
            assert type(product) is BlockLinear
            x = torch.randn(100, apart.in_features, device="cuda", dtype=torch.bfloat16)
            assert off(product, apart, x[:20]) < NEAR
            assert off(product, apart, x) < ROUNDED
    greedy(small, list(range(100)), 3)
