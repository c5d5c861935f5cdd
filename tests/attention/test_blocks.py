"""Products with weights in blocks of FP8, against float32: interpreted on a CPU, run on a card."""

from __future__ import annotations

import pytest
import torch

from epd.attention import kernels
from tests.fp8 import dequantised, quantised

on_a_card = pytest.mark.gpu
EXACT, HALF, E4M3 = 2e-6, 5e-3, 4e-2
"""Of the norm: float32, a result in bfloat16, and rows of three fraction bits."""


@pytest.fixture(autouse=True)
def interpreted(request: pytest.FixtureRequest) -> None:
    if not kernels.interpreted() and request.node.get_closest_marker("gpu") is None:
        pytest.skip("kernels are compiled here")


class Case:
    """Random rows, weights of magnitudes that differ from block to block, and a bias or none."""

    def __init__(
        self, rows: int, n: int, k: int, *, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> None:
        generator = torch.Generator().manual_seed(rows * 1000003 + n * 1009 + k)
        sizes = torch.rand(n // 128 + 1, k // 128 + 1, generator=generator).mul(4).exp2()
        sizes = sizes.repeat_interleave(128, 0)[:n].repeat_interleave(128, 1)[:, :k]
        self.x = torch.randn(rows, k, generator=generator).to(device, dtype)
        self.weight, self.factors = (
            part.to(device)
            for part in quantised(torch.randn(n, k, generator=generator) * sizes, 128)
        )
        self.bias = torch.randn(n, generator=generator).to(device, dtype) if rows % 2 else None

    def off(self, factors: torch.Tensor | None = None, **how: bool) -> float:
        """The error's norm as a share of the result's, with these factors instead of the real."""
        from epd.attention.kernels.blocks import product

        used = self.factors if factors is None else factors
        how = {"narrows": False, "knows_e4m3": True} | how
        found = product(self.x, self.weight, used, self.bias, **how).float()
        expected = self.x.float() @ dequantised(self.weight, self.factors, 128).T
        expected += 0 if self.bias is None else self.bias.float()
        return float((found - expected).norm() / expected.norm())


def sizes(seed: int) -> tuple[int, int, int]:
    """Rows, and outputs and inputs that are no multiples of a block."""
    generator = torch.Generator().manual_seed(seed)
    n, k = (int(torch.randint(1, 400, (), generator=generator)) for _ in range(2))
    return (1, 7, 64, 65, 130, 300)[seed % 6], n, k


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("knows_e4m3", [True, False])
def test_products_equal_those_of_the_dequantised_weight(seed: int, knows_e4m3: bool) -> None:
    """With the card's instruction for e4m3 and without, from its bits."""
    case = Case(*sizes(seed))
    assert case.off(knows_e4m3=knows_e4m3) < EXACT
    assert case.off(torch.ones_like(case.factors), knows_e4m3=knows_e4m3) > 0.1
    turned = case.factors.flatten().roll(1).view_as(case.factors)
    assert case.factors.numel() == 1 or case.off(turned, knows_e4m3=knows_e4m3) > 0.1


@pytest.mark.parametrize("seed", [3, 4, 5, 9])
def test_rows_in_fp8_are_as_near_as_three_bits_of_a_fraction(seed: int) -> None:
    case = Case(*sizes(seed))
    assert EXACT < case.off(narrows=True) < E4M3
    assert case.off(torch.ones_like(case.factors), narrows=True) > 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("narrows", [True, False])
def test_halves(dtype: torch.dtype, narrows: bool) -> None:
    assert Case(70, 136, 300, dtype=dtype).off(narrows=narrows) < (E4M3 if narrows else HALF)


def test_a_sum_in_parts_is_the_whole_sum() -> None:
    """Nine blocks of inputs: parts are not of one size."""
    from epd.attention.kernels.blocks import tiles

    assert tiles(9, 64, 1100, cores=2, item=4).splits == 2
    assert Case(9, 64, 1100).off() < EXACT


def test_every_value_of_e4m3_is_read_from_its_bits() -> None:
    from epd.attention.kernels.blocks import product

    numbers = torch.tensor([n for n in range(256) if n & 127 != 127], dtype=torch.uint8)
    weight = numbers.view(torch.float8_e4m3fn)[:, None].contiguous()
    one = torch.ones(1, 1)
    factors = torch.ones(2, 1)
    for knows in (True, False):
        found = product(one, weight, factors, None, narrows=False, knows_e4m3=knows)
        assert torch.equal(found[0], weight[:, 0].float())


def test_rows_are_rounded_as_torch_rounds_them() -> None:
    """In groups of 128, of which the last is cut off; a group of zeros stays one."""
    from epd.attention.kernels.blocks import LARGEST, narrow

    x = torch.randn(5, 300) * torch.logspace(-6, 3, 300)
    x[1, 128:256] = 0
    small, factors = narrow(x)
    groups = torch.nn.functional.pad(x, (0, 84)).view(5, 3, 128)
    most = groups.abs().amax(-1)
    expected = torch.where(most > 0, most / LARGEST, 1.0)
    assert torch.equal(factors, expected)
    rounded = (groups / expected[..., None]).to(torch.float8_e4m3fn).float().view(5, 384)[:, :300]
    assert torch.equal(small.float(), rounded)
    assert small.float().abs().amax() == LARGEST


def test_tiles_follow_from_shapes() -> None:
    """Qwen3-VL-8B on 132 multiprocessors: each has two programs wherever there is so much."""
    from epd.attention.kernels.blocks import tiles

    def programs(rows: int, n: int, k: int, item: int = 2) -> int:
        cut = tiles(rows, n, k, cores=132, item=item)
        return -(-rows // cut.rows) * -(-n // cut.columns) * cut.splits

    assert tiles(1, 4096, 12288, cores=132, item=2) == (16, 16, 1)
    assert tiles(1, 24576, 4096, cores=132, item=2) == (16, 64, 1)
    assert tiles(32, 4096, 12288, cores=132, item=2) == (32, 64, 4)
    assert tiles(2048, 4096, 12288, cores=132, item=1) == (128, 128, 1)
    for n, k in ((6144, 4096), (4096, 4096), (24576, 4096), (4096, 12288)):
        assert all(programs(rows, n, k) >= 192 for rows in (1, 8, 32, 64))
        assert all(programs(rows, n, k, item=1) >= 96 for rows in (128, 512, 2048))
    assert tiles(8, 64, 128, cores=132, item=2).splits == 1  # nothing to split


@on_a_card
@pytest.mark.parametrize("rows", [1, 8, 33, 64, 65, 300])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("n", "k"), [(4096, 4096), (1000, 1300), (512, 12288)])
def test_on_a_card(rows: int, dtype: torch.dtype, n: int, k: int) -> None:
    case = Case(rows, n, k, dtype=dtype, device="cuda")
    assert case.off(knows_e4m3=False) < HALF
    if torch.cuda.get_device_capability() >= (8, 9):
        assert case.off() < HALF
        assert case.off(narrows=True) < E4M3
    assert case.off(torch.ones_like(case.factors), knows_e4m3=False) > 0.1
