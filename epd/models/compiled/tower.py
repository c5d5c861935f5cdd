"""Blocks of the vision towers that tower.h computes; which those are.

As in decoder.py nothing is guessed: a block is of one of transformers' classes named here, made of
exactly the modules that these classes have today, with our leaves in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from epd.models.compiled.decoder import changed
from epd.models.compiled.kernels import LANES, Block, Kernels, Patches
from epd.models.compiled.streamed import Streamed

_LEAVES = {
    "norm1": "RmsNorm",
    "norm2": "RmsNorm",
    "attn.proj": "PackedLinear",
    "mlp": "GatedMlp",
    "mlp.gate_up": "PackedLinear",
    "mlp.down_proj": "PackedLinear",
}
_JOINT = {**{f"attn.{name}": "JointLinear" for name in "qkv"}, "attn.q.linear": "PackedLinear"}

# Class of a block -> the names of its modules and their classes.
BLOCKS: Mapping[str, Mapping[str, str]] = {
    "Qwen2_5_VLVisionBlock": {
        **_LEAVES,
        "attn": "Qwen2_5_VLVisionAttention",
        "attn.qkv": "PackedLinear",
    },
    "Qwen2_5OmniVisionBlock": {**_LEAVES, "attn": "Qwen2_5OmniVisionAttention", **_JOINT},
}


class CompiledBlock(nn.Module):
    """Takes the place of a block, and holds it for its weights."""

    def __init__(self, block: Any, kernels: Kernels) -> None:
        super().__init__()
        self.block = block
        self._kernels = kernels
        attention = block.attn
        qkv, proj, gate_up, down = (linear.streamed.product for linear in _linears(block))
        self._structure = Block(
            hidden=proj.output,
            intermediate=down.input,
            heads=attention.num_heads,
            scaling=attention.scaling,
            eps1=block.norm1.eps,
            eps2=block.norm2.eps,
            norm1=block.norm1.weight.data_ptr(),
            norm2=block.norm2.weight.data_ptr(),
            qkv=qkv,
            proj=proj,
            gate_up=gate_up,
            down=down,
        )

    def forward(
        self,
        hidden_states: torch.Tensor,
        cu_seqlens: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        **_: object,
    ) -> torch.Tensor:
        """[rows, hidden] -> the same. `cu_seqlens`: where items, or windows in them, end."""
        hidden = hidden_states.clone(memory_format=torch.contiguous_format)
        cos, sin = (each.float().contiguous() for each in position_embeddings)
        ends = cu_seqlens.to("cpu", torch.int64).contiguous()
        self._check(hidden, cos, sin, ends)
        patches = Patches(
            rows=len(hidden),
            threads=torch.get_num_threads(),
            hidden=hidden.data_ptr(),
            cos=cos.data_ptr(),
            sin=sin.data_ptr(),
            num_ends=len(ends),
            ends=ends.data_ptr(),
        )
        self._kernels.tower_block(self._structure, patches)
        return hidden

    def _check(
        self, hidden: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, ends: torch.Tensor
    ) -> None:
        """The kernel trusts addresses and ends."""
        size, rows = self._structure.hidden, len(hidden)
        assert hidden.dtype == torch.bfloat16 and hidden.shape == (rows, size)
        assert cos.shape == sin.shape == (rows, size // self._structure.heads)
        assert int(ends[0]) == 0 and int(ends[-1]) == rows and bool((ends.diff() >= 0).all())


def compile_blocks(tower: nn.Module, kernels: Kernels | None) -> int:
    """In place, where the kernels take many rows; how many blocks."""
    if kernels is None or not kernels.takes_many:
        return 0
    found = [
        (parent, name, child)
        for parent in tower.modules()
        for name, child in parent.named_children()
        if _recognised(child)
    ]
    for parent, name, child in found:
        setattr(parent, name, CompiledBlock(child, kernels))
    return len(found)


def _recognised(block: Any) -> bool:
    expected = BLOCKS.get(type(block).__name__)
    if expected is None or not type(block).__module__.startswith("transformers.models."):
        return False
    modules = {name: type(module).__name__ for name, module in block.named_modules() if name}
    return modules == expected and not any(map(changed, block.modules())) and _shaped(block)


def _shaped(block: Any) -> bool:
    """Whole vectors in a row and a head, whole tiles in every product."""
    streams: list[Streamed | None] = [linear.streamed for linear in _linears(block)]
    size, heads = len(block.norm1.weight), block.attn.num_heads
    if None in streams or size % heads or size // heads % 2 or size % LANES:
        return False
    found = [(each.product.input, each.product.output) for each in streams if each is not None]
    inner = found[3][0]
    wanted = [(size, 3 * size), (size, size), (size, 2 * inner), (inner, size)]
    gate_up = streams[2]
    return found == wanted and gate_up is not None and gate_up.can_gate


def _linears(block: Any) -> tuple[Any, Any, Any, Any]:
    attention = block.attn
    qkv = attention.qkv if hasattr(attention, "qkv") else attention.q.linear
    return qkv, attention.proj, block.mlp.gate_up, block.mlp.down_proj
