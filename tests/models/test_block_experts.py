"""Experts whose weights stay in FP8 say what their dequantised twins say."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from epd.attention import kernels
from epd.models.block_experts import BlockExperts
from epd.models.block_products import HEIGHTS, compile_products
from epd.models.partial import load_part
from epd.models.shards import Shards
from epd.models.spec import Checkpoint, read_checkpoint
from epd.models.storage import SCALES
from tests.checkpoints.omni import build_3
from tests.checkpoints.qwen3_vl_moe import build
from tests.fp8 import dequantised, quantised, twins
from tests.models.in_blocks import greedy, load
from tests.models.test_shards import Alone

EXACT, HALF, ROUNDED = 2e-6, 5e-3, 6e-2
"""Of the norm: float32, results in float16, and rows of three fraction bits, twice."""

BUILDERS: dict[str, Callable[[Path], Path]] = {
    "qwen3_omni_moe": partial(build_3, inside=128),
    "qwen3_vl_moe": partial(build, inside=128),
}


@pytest.fixture(autouse=True)
def interpreted(request: pytest.FixtureRequest) -> None:
    if not kernels.interpreted() and request.node.get_closest_marker("gpu") is None:
        pytest.skip("kernels are compiled here")


def made(experts: int, hidden: int, inside: int) -> BlockExperts:
    """With weights of magnitudes that differ from block to block."""
    module = BlockExperts(experts, hidden, inside, torch.device("cpu"))
    for name in ("gate_up_proj", "down_proj"):
        sizes = torch.rand(experts, 1, 1).mul(3).exp2() * 0.02
        small, factors = quantised(torch.randn(getattr(module, name).shape) * sizes, 128)
        getattr(module, name).data = small
        getattr(module, f"{name}_scale_inv").data = factors
    return module


def expected(
    module: BlockExperts, x: torch.Tensor, chosen: torch.Tensor, shares: torch.Tensor
) -> torch.Tensor:
    """Token by token, in float32."""
    up = dequantised(module.gate_up_proj, module.gate_up_proj_scale_inv, 128)
    down = dequantised(module.down_proj, module.down_proj_scale_inv, 128)
    out = torch.zeros(x.shape)
    for token, row in enumerate(x.float()):
        for expert, share in zip(chosen[token].tolist(), shares[token].float(), strict=True):
            gate, value = (up[expert] @ row).chunk(2)
            out[token] += share * (down[expert] @ (torch.nn.functional.silu(gate) * value))
    return out


def off(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.float() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("tokens", [1, 7, 40])
@pytest.mark.parametrize(("experts", "k"), [(3, 1), (6, 2), (20, 8)])
@torch.inference_mode()
def test_every_token_has_the_sum_of_its_experts(tokens: int, experts: int, k: int) -> None:
    """Of hidden sizes that end within a block; some experts are taken by none."""
    torch.manual_seed(tokens + experts)
    module = made(experts, 200, 128)
    x, shares = torch.randn(tokens, 200), torch.rand(tokens, k)
    chosen = torch.rand(tokens, experts).topk(k).indices
    wanted = expected(module, x, chosen, shares)
    assert off(module(x, chosen, shares), wanted) < EXACT
    half = [part.half() for part in (x, shares)]
    rounded = expected(module, half[0], chosen, half[1])
    assert off(module(half[0], chosen, half[1]), rounded) < HALF
    assert off(module(x, (chosen + 1) % experts, shares), wanted) > 0.1
    module.down_proj_scale_inv.data = module.down_proj_scale_inv.roll(1, 0)
    assert off(module(x, chosen, shares), wanted) > 0.1


@torch.inference_mode()
def test_many_rows_of_each_expert_are_rounded_and_few_are_not() -> None:
    """All may have taken one expert: no tile is missing."""
    torch.manual_seed(0)
    module = made(2, 136, 128)
    x, shares = torch.randn(150, 136), torch.rand(150, 1)
    for chosen in (torch.zeros(150, 1).long(), torch.arange(150)[:, None] % 2):
        wanted = expected(module, x, chosen, shares)
        assert HALF < off(module(x.half(), chosen, shares.half()), wanted) < ROUNDED
        assert off(module(x, chosen, shares), wanted) < EXACT


@pytest.mark.gpu
@pytest.mark.parametrize("tokens", [1, 16, 200, 2000])
@torch.inference_mode()
def test_on_a_card(tokens: int) -> None:
    """Sizes of Qwen3-VL-30B-A3B's, but with fewer experts."""
    torch.manual_seed(0)
    module = made(16, 2048, 768)
    x, shares = torch.randn(tokens, 2048).bfloat16(), torch.rand(tokens, 8).bfloat16()
    chosen = torch.rand(tokens, 16).topk(8).indices
    few = slice(0, 40)
    wanted = expected(module, x[few], chosen[few], shares[few])
    found = module.cuda()(x.cuda(), chosen.cuda(), shares.cuda())[few].cpu()
    assert off(found, wanted) < (2 * HALF if tokens <= 128 else ROUNDED)


def test_each_size_of_product_is_compiled_once_for_each_height_of_its_tiles() -> None:
    from epd.attention.kernels.experts import tiles

    torch.manual_seed(0)
    model = torch.nn.ModuleList([made(4, 64, 128), made(4, 64, 128)])
    ran: list[int] = []
    for module in model:
        module.register_forward_hook(lambda _, args, out: ran.append(args[1].numel()))
    compile_products(model, torch.bfloat16)
    assert ran == [4 * rows for rows in HEIGHTS]

    def shape(rows: int) -> tuple[int, int]:
        return tiles(rows, 4, item=2 if rows <= 4 * 64 else 1)[:2]

    assert {shape(rows) for rows in ran} == {shape(rows) for rows in range(1, 1200)}


@pytest.fixture(scope="module", params=BUILDERS)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Checkpoint, Checkpoint]:
    """In FP8, and the same weights written out."""
    path = BUILDERS[request.param](tmp_path_factory.mktemp("fp8") / "t")
    small, other = twins(path, 128)
    return read_checkpoint(small), read_checkpoint(other)


def kept(model: Any) -> dict[str, BlockExperts]:
    return {name: m for name, m in model.named_modules() if isinstance(m, BlockExperts)}


@torch.inference_mode()
def test_a_checkpoint_says_the_same_both_ways(pair: tuple[Checkpoint, Checkpoint]) -> None:
    small, other = load(pair[0], keep=True), load(pair[1], keep=False)
    experts = kept(small._decoder)
    assert len(experts) >= small.num_layers - 1 and not kept(other._decoder)
    prompt = [(37 * n + 5) % 200 for n in range(20)]
    found, logits = greedy(small, prompt, 6)
    tokens, near = greedy(other, prompt, 6)
    torch.testing.assert_close(logits, near, atol=1e-4, rtol=1e-4)
    assert found == tokens
    for module in experts.values():
        module.gate_up_proj_scale_inv.mul_(2.0)
    assert (greedy(small, prompt, 1)[1] - near).abs().max() > 1e-2  # negative control


def test_a_byte_is_held_for_each_value(pair: tuple[Checkpoint, Checkpoint]) -> None:
    parts = pair[0].adapter().language_parts()
    small, other = (
        load_part(pair[0], parts, device="cpu", dtype="float32", keep_blocks=keep)
        for keep in (True, False)
    )
    plain = dict(other.named_parameters())
    for path, module in kept(small).items():
        for name in ("gate_up_proj", "down_proj"):
            weight, factors = getattr(module, name), getattr(module, f"{name}_scale_inv")
            assert weight.dtype is torch.float8_e4m3fn
            assert torch.equal(dequantised(weight, factors, 128), plain[f"{path}.{name}"])


def apart(name: str, weight: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    """One expert's after the other's."""
    root, _, leaf = name.partition(".experts.")
    if not leaf:
        return [(name, weight)]
    end = SCALES if leaf.endswith(SCALES) else ""
    named = ("gate", "up") if "gate_up" in leaf else ("down",)
    return [
        (f"{root}.experts.{number}.{kind}_proj.weight{end}", part)
        for number, expert in enumerate(weight)
        for kind, part in zip(named, expert.chunk(len(named)), strict=True)
    ]


def turned(name: str, weight: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    """Inputs before outputs."""
    return [(name, weight.mT if ".experts." in name else weight)]


@pytest.mark.parametrize("place", ["card", "rank of 2", "elsewhere"])
@pytest.mark.parametrize("way", [apart, turned])
def test_files_may_have_experts_in_other_ways(
    way: Callable[[str, torch.Tensor], list[tuple[str, torch.Tensor]]], place: str, tmp_path: Path
) -> None:
    """Qwen3-VL's are published inputs before outputs; tools for FP8 write one expert's alone.

    They stay so on a card alone, for half of 128 is no whole block.
    """
    path, _ = twins(build(tmp_path / "t", inside=128), 128)

    def read() -> dict[str, torch.Tensor]:
        checkpoint = read_checkpoint(path)
        adapter = checkpoint.adapter()
        model = load_part(
            checkpoint,
            adapter.language_parts(),
            device="cpu",
            dtype="float32",
            shards=Shards(adapter, Alone(1, 2)) if place == "rank of 2" else None,
            keep_blocks=place != "elsewhere",
        )
        assert bool(kept(model)) is (place == "card")
        return {name: weight.clone() for name, weight in model.named_parameters()}

    joint = read()
    for file in path.glob("*.safetensors"):
        stored = load_file(file).items()
        weights = {new: part.contiguous() for each in stored for new, part in way(*each)}
        assert {n: w.shape for n, w in weights.items()} != {n: w.shape for n, w in stored}
        save_file(weights, file, {"format": "pt"})
    found = read()
    assert found.keys() == joint.keys()
    for name, weight in joint.items():
        assert torch.equal(found[name].float(), weight.float()), name


def test_experts_whose_gates_end_within_a_block_become_plain(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(twins(build(tmp_path / "t", inside=192), 128)[0])
    parts = checkpoint.adapter().language_parts()
    model = load_part(checkpoint, parts, device="cpu", dtype="float32", keep_blocks=True)
    assert not kept(model)
    small = {n for n, w in model.named_parameters() if w.dtype is torch.float8_e4m3fn}
    assert small and all(name.endswith("proj.weight") for name in small)
