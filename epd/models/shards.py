"""Tensor parallelism: which part of which weight a rank has, by transformers' own plan.

A plan names modules of the decoder and how each is cut: "colwise" by outputs, "rowwise" by inputs,
after which outputs are summed over the ranks. Transformers carries its plan out with DTensors;
here a rank has plain tensors of its own part, so everything that works on plain modules still does.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

from epd.errors import ConfigError, UnsupportedModel
from epd.models.adapter import Adapter
from epd.models.block_linear import BlockLinear
from epd.models.group import Group
from epd.models.storage import SCALES, SIDE

USUAL: Final[Mapping[str, str]] = {
    "layers.*.self_attn.q_proj": "colwise",
    "layers.*.self_attn.k_proj": "colwise",
    "layers.*.self_attn.v_proj": "colwise",
    "layers.*.self_attn.o_proj": "rowwise",
    "layers.*.mlp.gate_proj": "colwise",
    "layers.*.mlp.up_proj": "colwise",
    "layers.*.mlp.down_proj": "rowwise",
}
"""For decoders of the usual names whose configuration has no plan, such as Qwen3-VL's."""

_WHOLE = {"replicate", "replicated_with_grad_allreduce", "embedding_rowwise"}
_SUMMED = {"rowwise", "moe_tp_experts"}
_LINEAR = (nn.Linear, BlockLinear)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Cut:
    """A part of equal ones along `dim`, of each of `packed` weights that lie there in a row."""

    dim: int
    packed: int = 1

    def take(self, weight: torch.Tensor, name: str, rank: int, size: int) -> torch.Tensor:
        """Rank's part; a view where it can be. ConfigError where parts would not be equal."""
        length = weight.shape[self.dim]
        if length % (self.packed * size):
            raise ConfigError(
                f"tp is {size}: {name} has {length // self.packed} values to divide among the "
                f"ranks, and {size} does not divide {length // self.packed}"
            )
        parts = [whole.chunk(size, self.dim)[rank] for whole in weight.chunk(self.packed, self.dim)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, self.dim)

    def in_blocks(self, weight: torch.Tensor, size: int) -> bool:
        """Has each of `size` ranks whole blocks?"""
        return not weight.shape[self.dim] % (self.packed * size * SIDE)


class Shards:
    """One rank's part of a language model."""

    def __init__(self, adapter: Adapter, group: Group) -> None:
        self._adapter = adapter
        self._group = group

    def cuts(self, model: nn.Module) -> dict[str, Cut]:
        """By the names of the model's weights. Weights that are not named are whole everywhere.

        Factors of weights in FP8 are cut like them.
        """
        decoder = self._adapter.decoder(model)
        names = {id(weight): name for name, weight in model.named_parameters()}
        found = {
            names[id(weight)]: cut
            for module, style in _planned(decoder)
            for weight, cut in _cuts(module, style)
        }
        head = self._adapter.head(model)
        if self.divides_head(head) and head.weight is not decoder.get_input_embeddings().weight:
            found[names[id(head.weight)]] = Cut(0)
        factors = {f"{name}{SCALES}": cut for name, cut in found.items()}
        return found | {name: factors[name] for name in names.values() if name in factors}

    def fits(self, model: nn.Module) -> Callable[[str], bool]:
        """Do parts of the weight of this name begin and end where its blocks of FP8 do?

        The log has one of each kind where they do not. Nor does a head that stays whole.
        """
        cuts, weights = self.cuts(model), dict(model.named_parameters())
        head, size = self._adapter.head(model).weight, self._group.size
        told: set[str] = set()

        def fit(name: str) -> bool:
            weight, cut = weights[name], cuts.get(name)
            if cut is None:
                return weight is not head
            if cut.in_blocks(weight, size):
                return True
            if (kind := re.sub(r"\d+", "*", name)) not in told:
                told.add(kind)
                log.info("tp is %d: %s become plain, ranks have parts of blocks", size, kind)
            return False

        return fit

    def take(self, cut: Cut | None, weight: torch.Tensor, name: str) -> torch.Tensor:
        """What this rank has of a weight."""
        if cut is None:
            return weight
        return cut.take(weight, name, self._group.rank, self._group.size).contiguous()

    def divides_head(self, head: nn.Linear) -> bool:
        """A vocabulary that cannot be divided stays whole, and rank 0 alone needs it."""
        return head.out_features % self._group.size == 0

    def install(self, model: nn.Module) -> None:
        """Join the parts of a model whose weights were cut. Ids are embedded on rank 0 alone."""
        decoder, head = self._adapter.decoder(model), self._adapter.head(model)
        rank, size = self._group.rank, self._group.size
        embedding = decoder.get_input_embeddings().weight
        if self.divides_head(head):
            if head.weight is embedding:
                part = Cut(0).take(embedding.data, "the head", rank, size)
                head.weight = nn.Parameter(part if rank == 0 else part.clone(), False)
        elif rank:
            head.weight = nn.Parameter(embedding.new_empty(0, head.in_features), False)
        if rank:
            empty = nn.Embedding(0, embedding.shape[1], _weight=embedding.data[:0].clone())
            decoder.set_input_embeddings(empty.requires_grad_(False))
        for linear in [*decoder.modules(), head]:
            if isinstance(linear, _LINEAR):
                linear.out_features, linear.in_features = linear.weight.shape
        for module, style in list(_planned(decoder)):
            if style in _SUMMED and isinstance(module, nn.Module):
                if rank and isinstance(module, _LINEAR):
                    module.register_parameter("bias", None)  # added once
                _replace(decoder, module, Summed(module, self._group))


class Summed(nn.Module):
    """A module of which every rank computes a part that is to be added."""

    def __init__(self, part: nn.Module, group: Group) -> None:
        super().__init__()
        self.part = part
        self._group = group

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The sum, on every rank."""
        out: torch.Tensor = self.part(*args, **kwargs)
        out = out.contiguous()
        self._group.add_up(out)
        return out


@dataclass(frozen=True, slots=True)
class _Bare:
    """A weight that a plan names itself."""

    weight: nn.Parameter


def _planned(decoder: Any) -> Iterator[tuple[nn.Module | _Bare, str]]:
    """Every module and bare weight of the decoder that its plan names, and the style.

    UnsupportedModel where the plan is not one that is carried out here.
    """
    plan = getattr(decoder.config, "base_model_tp_plan", None) or USUAL
    found: dict[str, nn.Module | _Bare] = dict(decoder.named_modules())
    found |= {name: _Bare(weight) for name, weight in decoder.named_parameters()}
    attention = 0
    for pattern, style in plan.items():
        matches = re.compile(re.escape(pattern).replace(r"\*", r"\d+")).fullmatch
        planned = [target for name, target in found.items() if matches(name)]
        attention += len(planned) if pattern.endswith("self_attn.o_proj") else 0
        if style not in _WHOLE:
            yield from ((target, style) for target in planned)
    if attention != decoder.config.num_hidden_layers:
        raise UnsupportedModel(
            f"tp: {type(decoder).__name__} has no plan that divides the attention of its layers"
        )


def _cuts(target: nn.Module | _Bare, style: str) -> Iterator[tuple[nn.Parameter, Cut]]:
    if style == "moe_tp_experts":
        return  # its weights have styles of their own
    weight: Any = target.weight
    if style == "packed_colwise" and isinstance(target, _Bare):
        yield target.weight, Cut(target.weight.ndim - 2, packed=2)
    elif style == "rowwise":
        yield weight, Cut(weight.ndim - 1)
    elif style == "colwise" and isinstance(target, _LINEAR):
        yield weight, Cut(0)
        if isinstance(target.bias, nn.Parameter):
            yield target.bias, Cut(0)
    else:
        raise UnsupportedModel(f"tp: weights cannot be divided in the style {style}")


def _replace(root: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent in list(root.modules()):
        for name, child in list(parent.named_children()):
            if child is old:
                setattr(parent, name, new)
