"""Experts whose weights stay in FP8: what epd.models.block_linear is for linear modules."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from epd.models.block_linear import has_units
from epd.models.gated import is_silu
from epd.models.storage import SCALES, SIDE

_WEIGHTS = {"gate_up_proj": 3, "down_proj": 3}


class BlockExperts(nn.Module):
    """Gated products, of which every token takes a few, summed by what its router says.

    `gate_up_proj` [experts, 2 * inside, hidden] and `down_proj` [experts, hidden, inside] are
    float8_e4m3fn; factors of their blocks have their names with storage.SCALES behind, as in
    transformers. Rows are rounded to FP8 where experts have many each, see BlockLinear.
    """

    gate_up_proj: nn.Parameter
    gate_up_proj_scale_inv: nn.Parameter
    down_proj: nn.Parameter
    down_proj_scale_inv: nn.Parameter

    def __init__(self, experts: int, hidden: int, inside: int, device: torch.device) -> None:
        super().__init__()
        self.experts = experts
        for name, rows, columns in (
            ("gate_up_proj", 2 * inside, hidden),
            ("down_proj", hidden, inside),
        ):
            weight = torch.empty(experts, rows, columns, dtype=torch.float8_e4m3fn, device=device)
            blocks = (experts, -(-rows // SIDE), -(-columns // SIDE))
            factors = torch.empty(blocks, dtype=torch.float32, device=device)
            self.register_parameter(name, nn.Parameter(weight, requires_grad=False))
            self.register_parameter(f"{name}{SCALES}", nn.Parameter(factors, requires_grad=False))

    @classmethod
    def in_place_of(cls, module: Any) -> BlockExperts:
        """Of the same sizes on the same device, to be filled."""
        experts, hidden, inside = module.down_proj.shape
        return cls(experts, hidden, inside, module.down_proj.device)

    def forward(
        self, hidden: torch.Tensor, chosen: torch.Tensor, shares: torch.Tensor
    ) -> torch.Tensor:
        """[T, hidden], [T, k] int64 and [T, k] -> [T, hidden]. A device is not waited for."""
        from epd.attention.kernels.blocks import FEW_ROWS
        from epd.attention.kernels.experts import product
        from epd.attention.kernels.silu_mul import silu_mul

        num_tokens, k = chosen.shape
        rows = num_tokens * k
        ordered, order = torch.sort(chosen.reshape(-1), stable=True)
        numbers = torch.arange(self.experts, device=chosen.device)
        ends = torch.searchsorted(ordered, numbers, right=True, out_int32=True)
        knows = has_units(hidden.device)
        many = rows > FEW_ROWS * self.experts
        multiply = partial(
            product,
            rows=rows,
            narrows=knows and many and hidden.dtype is not torch.float32,
            knows_e4m3=knows,
        )
        up, up_factors = self.gate_up_proj, self.gate_up_proj_scale_inv
        down, down_factors = self.down_proj, self.down_proj_scale_inv
        both = multiply(hidden.contiguous(), order // k, up, up_factors, ends, None)
        out = multiply(silu_mul(both), None, down, down_factors, ends, order)
        return (out.view(num_tokens, k, -1) * shares.unsqueeze(-1)).sum(1).to(hidden.dtype)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of the same ones the kernels are the same."""
        return tuple(self.gate_up_proj.shape)

    def multiply(self, rows: int, dtype: torch.dtype) -> None:
        """Its products once, `rows` for each expert."""
        chosen = torch.arange(rows * self.experts, device=self.down_proj.device) % self.experts
        hidden = self.down_proj.new_zeros(len(chosen), self.gate_up_proj.shape[-1], dtype=dtype)
        self(hidden, chosen[:, None], hidden[:, :1])


def are_experts(module: Any) -> bool:
    """transformers' of the usual kind, whose gates end where a block does."""
    own = {name: weight.ndim for name, weight in module.named_parameters()}
    if own != _WEIGHTS or not is_silu(getattr(module, "act_fn", None)):
        return False
    usual = module.has_gate and module.is_concatenated and not module.has_post_expert_norm
    gates = module._apply_gate.__module__.endswith("integrations.moe")
    inside: int = module.down_proj.shape[-1]
    return usual and gates and not module.is_transposed and inside % SIDE == 0
