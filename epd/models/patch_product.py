"""The convolution that turns patches into hidden states, as the product of matrices that it is."""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
from torch import nn

from epd.models.compiled.kernels import Kernels
from epd.models.packed import PackedLinear, can_pack


class PatchProduct(nn.Module):
    """What a convolution makes of inputs that are as large as its kernel."""

    def __init__(self, convolution: nn.Conv3d, kernels: Kernels | None) -> None:
        super().__init__()
        self.weight = convolution.weight.new_empty(0)  # asked for its dtype
        self.linear = PackedLinear([_linear(convolution)], single_rows=False, kernels=kernels)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """[N, channels, time, height, width] of the kernel -> [N, hidden, 1, 1, 1]."""
        out: torch.Tensor = self.linear(patches.flatten(1))
        return out[..., None, None, None]


def is_patch_product(parent: Any, child: Any) -> TypeGuard[nn.Conv3d]:
    """Is this the convolution of one of transformers' patch embeddings, which are given patches cut
    out already?"""
    if type(child) is not nn.Conv3d or not type(parent).__name__.endswith("PatchEmbed"):
        return False
    plain = child.kernel_size == child.stride and child.groups == 1 and not any(child.padding)
    return plain and set(child.dilation) == {1} and can_pack(_linear(child))


def _linear(convolution: nn.Conv3d) -> nn.Linear:
    """On the same weights."""
    linear = nn.Linear(1, 1, bias=convolution.bias is not None, device="meta")
    weight = convolution.weight.detach().flatten(1)
    linear.out_features, linear.in_features = weight.shape
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if convolution.bias is not None:
        linear.bias = nn.Parameter(convolution.bias.detach(), requires_grad=False)
    return linear
