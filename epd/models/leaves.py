"""The leaf modules of Hugging Face's models that ours replace on a CPU; all of them are here.

transformers' classes around them stay as they are, and so does what they compute:

* Linear modules get packed weights. Siblings that are given the same input (q, k and v; gate and
  up) become one product.
* RMSNorm and the activation of a gated product make fewer passes.
* The convolution over patches that are cut out already becomes a product.

Original weights are freed, except an embedding table that a packed head shared.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from epd.models.compiled.kernels import Kernels
from epd.models.compiled.streamed import TILE_OUT
from epd.models.fused import SIBLINGS
from epd.models.gated import GatedMlp, is_gated
from epd.models.packed import JointLinear, JointProduct, PackedLinear, can_pack
from epd.models.patch_product import PatchProduct, is_patch_product
from epd.models.rms_norm import RmsNorm, is_rms_norm


def replace_leaves(model: nn.Module, *, single_rows: bool, kernels: Kernels | None = None) -> None:
    """In place. On another device than a CPU nothing changes.

    `single_rows`: is the model ever given one row alone, as a decode is, so that weights should be
    held in what is fastest for one row too? `kernels`: what multiplies a few rows, if it can be.
    """
    if any(weight.device.type != "cpu" for weight in model.parameters()):
        return
    if kernels is not None:
        _gate(model, single_rows, kernels)
    parents: list[Any] = list(model.modules())
    for parent in parents:
        for names in SIBLINGS:
            _join(parent, names, single_rows, kernels)
        for name, child in list(parent.named_children()):
            if can_pack(child):
                packed = PackedLinear([child], single_rows=single_rows, kernels=kernels)
                setattr(parent, name, packed)
            elif is_patch_product(parent, child):
                setattr(parent, name, PatchProduct(child, kernels))
            elif is_rms_norm(child):
                setattr(
                    parent, name, RmsNorm(child.weight, child.variance_epsilon, kernels=kernels)
                )
    # What is left may be a view of the mapped file: a copy lets go of all the rest of it.
    for weight in model.parameters():
        weight.data = weight.data.clone()


def weight_bytes(model: nn.Module) -> int:
    """Memory of all weights under `model`, in every copy that is held."""
    plain = sum(weight.nbytes for weight in model.parameters())
    return plain + sum(m.nbytes for m in model.modules() if isinstance(m, PackedLinear))


def _gate(model: nn.Module, single_rows: bool, kernels: Kernels) -> None:
    """One module in place of each gated product that the kernel takes, in whole tiles."""
    parents: list[Any] = list(model.modules())
    for parent in parents:
        for name, mlp in list(parent.named_children()):
            if not is_gated(mlp) or not _can_gate(mlp.gate_proj, mlp.up_proj):
                continue
            inner = -(-mlp.gate_proj.out_features // TILE_OUT) * TILE_OUT
            both = [_padded(linear, outputs=inner) for linear in (mlp.gate_proj, mlp.up_proj)]
            packed = PackedLinear(both, single_rows=single_rows, kernels=kernels)
            streamed = packed.streamed
            gated = streamed.gated if streamed is not None and streamed.can_gate else None
            down = _padded(mlp.down_proj, inputs=inner)
            setattr(parent, name, GatedMlp(packed, down, kernels.silu_mul, gated))


def _can_gate(gate: Any, up: Any) -> bool:
    return (
        can_pack(gate)
        and can_pack(up)
        and _kind(gate) == _kind(up)
        and gate.weight.dtype is torch.bfloat16
        and gate.out_features == up.out_features
    )


def _padded(linear: nn.Linear, *, outputs: int = 0, inputs: int = 0) -> nn.Linear:
    """The same with more outputs that are 0, or inputs that add nothing: whole tiles are faster."""
    more = max(0, outputs - linear.out_features), max(0, inputs - linear.in_features)
    if not any(more):
        return linear
    padded = nn.Linear(1, 1, bias=linear.bias is not None, device="meta")
    padded.in_features = linear.in_features + more[1]
    padded.out_features = linear.out_features + more[0]
    weight = F.pad(linear.weight.detach(), (0, more[1], 0, more[0]))
    padded.weight = nn.Parameter(weight, requires_grad=False)
    if linear.bias is not None:
        bias = F.pad(linear.bias.detach(), (0, more[0]))
        padded.bias = nn.Parameter(bias, requires_grad=False)
    return padded


def _join(
    parent: nn.Module, names: tuple[str, ...], single_rows: bool, kernels: Kernels | None
) -> None:
    linears = [getattr(parent, name, None) for name in names]
    found = [linear for linear in linears if linear is not None and can_pack(linear)]
    if len(found) < len(names) or len({_kind(linear) for linear in found}) > 1:
        return
    packed = PackedLinear(found, single_rows=single_rows, kernels=kernels)
    product = JointProduct(packed, [linear.out_features for linear in found])
    for index, name in enumerate(names):
        setattr(parent, name, JointLinear(product, index))


def _kind(linear: nn.Linear) -> tuple[object, ...]:
    """Only equals can be laid side by side."""
    return linear.in_features, linear.weight.dtype, linear.bias is None
