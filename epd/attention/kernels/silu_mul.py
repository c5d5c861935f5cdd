"""silu(gate) * up, of one product that holds both side by side.

Bytes, for x bytes of either half: 2 x are read and x written, in one launch. An activation and a
product apart read 3 x and write 2 x, in two.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_TILE = 1024


def silu_mul(both: torch.Tensor) -> torch.Tensor:
    """[..., 2 n] contiguous, gate before up -> [..., n], rounded as the two apart."""
    assert both.is_contiguous()
    n = both.shape[-1] // 2
    out = torch.empty((*both.shape[:-1], n), dtype=both.dtype, device=both.device)
    _silu_mul[(out.numel() // n, triton.cdiv(n, _TILE))](both, out, n, TILE=_TILE, num_warps=4)
    return out


@triton.jit
def _silu_mul(both, out, n, TILE: tl.constexpr):
    """A tile of one row."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * TILE + tl.arange(0, TILE)
    here = column < n
    gate = tl.load(both + row * 2 * n + column, mask=here, other=0.0).to(tl.float32)
    up = tl.load(both + row * 2 * n + n + column, mask=here, other=0.0).to(tl.float32)
    active = (gate / (1 + tl.exp(-gate))).to(out.dtype.element_ty).to(tl.float32)
    tl.store(out + row * n + column, (active * up).to(out.dtype.element_ty), mask=here)
