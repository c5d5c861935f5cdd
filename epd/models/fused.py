"""What of transformers' models is replaced on a CUDA device; nothing of theirs is copied.

* Siblings that are given the same input (q, k and v; gate and up) become one product.
* Norms, the sum before a norm, and the activation of a gated product become one kernel each.
* Rotations of language models are put off until keys are written to their pages, see
  epd.attention.rotary; those of vision towers become one kernel.

Each is replaced only where a module is made of exactly what the replacement computes; others stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from epd.attention import kernels
from epd.models.block_linear import BlockLinear, can_join, joined
from epd.models.gated import GatedMlp, is_gated
from epd.models.packed import JointLinear, JointProduct
from epd.models.rms_norm import is_rms_norm
from epd.models.rotations import put_off_rotation, rotate_together

SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("q", "k", "v"), ("gate_proj", "up_proj"))
"""What transformers' layers call one after the other with the same input."""

_LAYER = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}


def fuse(model: nn.Module, decoder: Any) -> None:
    """In place. `decoder` is the part of `model` with the layers. Weights keep their device."""
    runs = kernels.why_not(decoder.get_input_embeddings().weight.device) is None
    if runs:
        put_off_rotation(decoder)
    _replace_under(model, runs)


def fuse_towers(model: nn.Module) -> None:
    """Norms, gated products, siblings and rotations of towers, in place. Their blocks stay."""
    runs = kernels.why_not(next(model.parameters()).device) is None
    if runs:
        rotate_together(model)
    _replace_under(model, runs, layers=False)


def _replace_under(parent: Any, runs: bool, *, layers: bool = True) -> None:
    """Children before their parent; nothing keeps what was replaced, whose memory is needed."""
    for name, child in list(parent.named_children()):
        if runs and is_rms_norm(child):
            setattr(parent, name, FusedRmsNorm(child.weight, child.variance_epsilon))
        elif runs and is_gated(child) and _can_join([child.gate_proj, child.up_proj]):
            setattr(parent, name, _gated(child))
        else:
            _replace_under(child, runs, layers=layers)
            if runs and layers and _is_layer(child):
                setattr(parent, name, FusedLayer(child))
    for names in SIBLINGS:
        join(parent, names)


def _gated(mlp: Any) -> GatedMlp:
    from epd.attention.kernels.silu_mul import silu_mul

    return GatedMlp(side_by_side([mlp.gate_proj, mlp.up_proj]), mlp.down_proj, silu_mul)


def join(parent: nn.Module, names: Sequence[str]) -> None:
    """One product in place of these children, where they are linear modules that can be one."""
    linears: list[Any] = [getattr(parent, name, None) for name in names]
    if not _can_join(linears):
        return
    product = JointProduct(side_by_side(linears), [linear.out_features for linear in linears])
    for index, name in enumerate(names):
        setattr(parent, name, JointLinear(product, index))


def side_by_side(linears: Sequence[Any]) -> nn.Linear | BlockLinear:
    """A linear module with the outputs of all of these."""
    if isinstance(linears[0], BlockLinear):
        return joined(linears)
    weight = torch.cat([linear.weight.detach() for linear in linears])
    made = nn.Linear(1, 1, bias=linears[0].bias is not None, device="meta")
    made.out_features, made.in_features = weight.shape
    made.weight = nn.Parameter(weight, requires_grad=False)
    if linears[0].bias is not None:
        bias = torch.cat([linear.bias.detach() for linear in linears])
        made.bias = nn.Parameter(bias, requires_grad=False)
    return made


class FusedRmsNorm(nn.Module):
    """A norm of the Llama kind in one kernel."""

    def __init__(self, weight: nn.Parameter, eps: float) -> None:
        super().__init__()
        self.weight = weight
        self.eps = eps

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[..., n] -> [..., n]."""
        from epd.attention.kernels.rms_norm import rms_norm

        return rms_norm(hidden, self.weight, self.eps)

    def of_sum(
        self, hidden: torch.Tensor, residual: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """hidden + residual normalised, and that sum, which takes the place of `hidden`."""
        from epd.attention.kernels.rms_norm import add_rms_norm

        return add_rms_norm(hidden, residual, self.weight, self.eps)


class FusedLayer(nn.Module):
    """A decoder layer whose second norm comes with the sum before it."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.self_attn = layer.self_attn
        self.mlp = layer.mlp
        self.input_layernorm = layer.input_layernorm
        self.post_attention_layernorm: FusedRmsNorm = layer.post_attention_layernorm

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """[1, T, hidden] -> [1, T, hidden]."""
        normed = self.input_layernorm(hidden_states)
        attended, _ = self.self_attn(hidden_states=normed, **kwargs)
        normed, residual = self.post_attention_layernorm.of_sum(attended, hidden_states)
        out: torch.Tensor = residual + self.mlp(normed)
        return out


def _is_layer(layer: Any) -> bool:
    named = {name for name, _ in layer.named_children()}
    return named == _LAYER and isinstance(layer.post_attention_layernorm, FusedRmsNorm)


def _can_join(linears: Sequence[Any]) -> bool:
    if not all(_is_plain(linear) for linear in linears):
        return False
    return len({_kind(linear) for linear in linears}) == 1 and can_join(linears)


def _is_plain(linear: Any) -> bool:
    """Nothing but a product with a weight that lies whole on one device."""
    if type(linear) not in (nn.Linear, BlockLinear):
        return False
    hooks = getattr(linear, "_forward_hooks", None) or getattr(linear, "_forward_pre_hooks", None)
    return not hooks and type(linear.weight.data) is torch.Tensor


def _kind(linear: nn.Linear | BlockLinear) -> tuple[object, ...]:
    """Only equals can be laid side by side."""
    return linear.in_features, linear.weight.dtype, linear.weight.device, linear.bias is None
