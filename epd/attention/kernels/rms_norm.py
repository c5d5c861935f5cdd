"""Root mean square normalisation, alone or behind the sum that a residual stream makes.

Bytes, for x bytes of hidden states in 16 bits: alone it reads x and writes x. transformers' class
widens (3 x), squares (4 x), averages (2 x), scales (4 x), narrows (3 x) and multiplies (2 x): 18 x,
in eight launches with those on the averages. With the sum before it, x and the residual are read,
the sum and its norm written: 4 x in one launch, where the two apart move 5 x in two.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from epd.attention.kernels import power_of_two

_TILE = 4096  # values that a program holds: as many whole rows as fit, at least one


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """[..., n] -> [..., n], normalised in float32, rounded as transformers' Llama kind rounds."""
    if x.stride(-1) != 1 or x.dim() > 2 and x.shape[:-2].numel() != x.shape[-3]:
        x = x.contiguous()
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _launch(x, x, x, weight, out, eps, add=False)
    return out


def add_rms_norm(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """x + residual normalised, and x + residual, which takes the place of `x`. Both contiguous."""
    assert x.is_contiguous() and residual.is_contiguous() and x.shape == residual.shape
    out = torch.empty_like(x)
    _launch(x, residual, x, weight, out, eps, add=True)
    return out, x


def _launch(
    x: torch.Tensor,
    residual: torch.Tensor,
    total: torch.Tensor,
    weight: torch.Tensor,
    out: torch.Tensor,
    eps: float,
    *,
    add: bool,
) -> None:
    n = x.shape[-1]
    inner = x.shape[-2] if x.dim() > 1 else 1
    outer_stride = x.stride(-3) if x.dim() > 2 else n * inner
    inner_stride = x.stride(-2) if x.dim() > 1 else n
    num_rows = x.numel() // n
    n_pad = power_of_two(n)
    rows = max(1, _TILE // n_pad)
    _rms_norm[(triton.cdiv(num_rows, rows),)](
        x,
        residual,
        total,
        weight,
        out,
        num_rows,
        inner,
        outer_stride,
        inner_stride,
        eps,
        ADD=add,
        N=n,
        N_PAD=n_pad,
        ROWS=rows,
        num_warps=8 if n_pad >= 4096 else 4,
    )


@triton.jit(do_not_specialize=["num_rows"])
def _rms_norm(
    x,
    residual,
    total,
    weight,
    out,
    num_rows,
    inner,
    outer_stride,
    inner_stride,
    eps,
    ADD: tl.constexpr,
    N: tl.constexpr,
    N_PAD: tl.constexpr,
    ROWS: tl.constexpr,
):
    """ROWS rows, each whole. Those of `x` lie `inner` together, evenly; all others are dense."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, N_PAD)
    here = (row < num_rows)[:, None] & (column < N)[None, :]
    row = row.to(tl.int64)
    at = (row // inner) * outer_stride + (row % inner) * inner_stride
    dense = row[:, None] * N + column[None, :]
    value = tl.load(x + at[:, None] + column[None, :], mask=here, other=0.0).to(tl.float32)
    if ADD:
        value += tl.load(residual + dense, mask=here, other=0.0).to(tl.float32)
        rounded = value.to(total.dtype.element_ty)
        tl.store(total + dense, rounded, mask=here)
        value = rounded.to(tl.float32)
    mean = tl.sum(value * value, 1) / N
    scale = 1 / tl.sqrt(mean + eps)
    factor = tl.load(weight + column, mask=column < N, other=0.0).to(tl.float32)
    normed = (value * scale[:, None]).to(out.dtype.element_ty).to(tl.float32)
    tl.store(out + dense, (normed * factor[None, :]).to(out.dtype.element_ty), mask=here)
