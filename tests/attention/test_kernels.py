"""Our small kernels compute what the passes do that they stand for, in double precision."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from epd.attention.kernels.rms_norm import add_rms_norm, rms_norm
from epd.attention.kernels.rotary import rotate_patches
from epd.attention.kernels.rows import add_rows, put_rows
from epd.attention.kernels.silu_mul import silu_mul
from epd.models.torchvision_shim import prepare_torchvision

ALL = pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
NEAR = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
EPS = 1e-6


def near(found: torch.Tensor, expected: torch.Tensor) -> None:
    close = NEAR[found.dtype]
    torch.testing.assert_close(found.double(), expected, atol=close, rtol=close)


def norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(x.double(), x.shape[-1:], weight.double(), EPS)


@ALL
@pytest.mark.parametrize("shape", [(1, 5, 80), (3, 5000)])
def test_rms_norm(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
    torch.manual_seed(0)
    x = (torch.randn(shape, device=device) * 3).to(dtype)
    weight = torch.rand(shape[-1], device=device).to(dtype)
    near(rms_norm(x, weight, EPS), norm(x, weight))
    assert (rms_norm(x, weight, 1.0).double() - norm(x, weight)).abs().max() > 0.02  # control


def test_rms_norm_of_heads_in_a_wider_product(device: torch.device) -> None:
    """Queries as a joint product leaves them: the heads of a row are dense, rows are not."""
    product = torch.randn(1, 7, 96, device=device)
    heads = product[..., 16:64].view(1, 7, 3, 16)
    weight = torch.rand(16, device=device)
    assert not heads.is_contiguous()
    near(rms_norm(heads, weight, EPS), norm(heads, weight))


@ALL
def test_rms_norm_behind_a_sum(dtype: torch.dtype, device: torch.device) -> None:
    x, residual = torch.randn(2, 1, 5, 96, device=device).to(dtype)
    weight = torch.rand(96, device=device).to(dtype)
    total = (x + residual).double()
    normed, summed = add_rms_norm(x, residual, weight, EPS)
    near(normed, norm(total, weight))
    near(summed, total)
    assert summed.data_ptr() == x.data_ptr()


@ALL
def test_silu_mul(dtype: torch.dtype, device: torch.device) -> None:
    both = torch.randn(1, 3, 2 * 1100, device=device).to(dtype)
    gate, up = both.double().chunk(2, -1)
    near(silu_mul(both), F.silu(gate) * up)
    assert (silu_mul(both).double() - F.silu(up) * gate).abs().max() > 0.1  # negative control


@ALL
@pytest.mark.parametrize("dim", [64, 72, 80, 128])
@pytest.mark.parametrize("seed", range(3))
def test_queries_and_keys_of_patches_are_turned(
    seed: int, dim: int, dtype: torch.dtype, device: torch.device
) -> None:
    """As transformers' function turns them, out of parts of one product, which stays as it is."""
    prepare_torchvision()
    from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb_vision

    generator = torch.Generator().manual_seed(seed)
    num, heads = (int(torch.randint(1, most, (), generator=generator)) for most in (40, 20))
    product = torch.randn(num, 3, heads, dim, generator=generator).to(device, dtype)
    angles = torch.randn(2, num, dim, generator=generator).to(device)
    query, key, _ = product.unbind(1)
    kept = product.clone()
    expected = apply_rotary_pos_emb_vision(query.double(), key.double(), *angles)
    found = rotate_patches(query, key, *angles)
    for turned, wanted in zip(found, expected, strict=True):
        near(turned, wanted)
        assert turned.is_contiguous()
    assert torch.equal(product, kept)
    other = apply_rotary_pos_emb_vision(key.double(), query.double(), *angles)[0]
    assert (found[0].double() - other).abs().max() > 0.1  # negative control


@ALL
def test_rows_are_put_and_added_where_they_belong(dtype: torch.dtype, device: torch.device) -> None:
    """Rows are slices of wider ones."""
    wide = torch.randn(3, 2 * 1100, device=device).to(dtype)
    first, second = wide.chunk(2, 1)
    batch = torch.randn(6, 1100, device=device).to(dtype)
    places = torch.tensor([4, 0, 5], device=device)
    expected = batch.double()
    expected[places] = first.double() + second.double()
    put_rows(batch, places, first)
    add_rows(batch, places, second)
    near(batch, expected)
