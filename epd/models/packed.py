"""Matrix products with weights in the layout that this machine's CPU multiplies fastest.

Our compiled kernels multiply any number of rows where the CPU has bfloat16 instructions of
AVX-512, with one copy of the weights. Without them, such a CPU multiplies bfloat16 that oneDNN
packs. One without such instructions is several times slower in bfloat16 than in float32 as soon as
there is more than one row, so there a second, float32 copy is packed: the same weights, every
product summed in float32, rounded once at the end. Few rows are bound by reading weights, and read
the bfloat16 copy: up to MOST_ROWS with our compiled kernels, a single one without. A model that
never computes so few rows needs none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

import torch
from torch import nn

from epd.attention.products import has_bf16_instructions
from epd.models.compiled.kernels import Kernels
from epd.models.compiled.streamed import Streamed, can_stream

# oneDNN chooses a layout for a number of rows. This one serves all: from 8 rows on it hardly
# changes, and for one row it is the fastest too, except in products that make fewer values than
# they take.
USUAL_ROWS = 16


def can_pack(linear: object) -> TypeGuard[nn.Linear]:
    """Is this a plain linear module on an x86 CPU? Elsewhere torch's own products stay."""
    if type(linear) is not nn.Linear or linear.weight.device.type != "cpu":
        return False
    known = linear.weight.dtype in {torch.float32, torch.bfloat16}
    return known and bool(torch._C._has_mkldnn and torch.cpu._is_avx2_supported())


class PackedLinear(nn.Module):
    """x W^T + b; the outputs of several linear modules side by side where more than one is given.

    Takes and returns the dtype of those modules.
    """

    def __init__(
        self,
        linears: Sequence[nn.Linear],
        *,
        single_rows: bool = True,
        kernels: Kernels | None = None,
    ) -> None:
        super().__init__()
        weight = torch.cat([linear.weight.detach() for linear in linears])
        bias = None
        if linears[0].bias is not None:
            bias = torch.cat([linear.bias.detach() for linear in linears])
        widens = weight.dtype == torch.float32 or not has_bf16_instructions()
        computed = torch.float32 if widens else torch.bfloat16
        self._computed = computed
        self._many: _Packed | Streamed
        self._few: _Packed | Streamed | None = None
        if _streams_all(weight, kernels):
            assert kernels is not None
            self._few = self._many = Streamed(weight, bias, kernels)
            return
        self._many = _Packed(weight.to(computed), None if bias is None else bias.to(computed))
        if weight.dtype == torch.bfloat16 and single_rows:
            self._few = _for_few_rows(weight, bias, widens, kernels)

    @property
    def streamed(self) -> Streamed | None:
        """The weights as compiled kernels read them."""
        return self._few if isinstance(self._few, Streamed) else None

    @property
    def nbytes(self) -> int:
        """Of each copy, biases included."""
        copies = {id(packed): packed.nbytes for packed in (self._few, self._many) if packed}
        return sum(copies.values())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out]."""
        if self._few is not None and x.numel() <= self._few.most_rows * x.shape[-1]:
            return self._few(x)
        return self._many(x.to(self._computed)).to(x.dtype)


def _streams_all(weight: torch.Tensor, kernels: Kernels | None) -> bool:
    """Does one copy serve any number of rows?"""
    takes = kernels is not None and kernels.takes_many
    return takes and weight.dtype is torch.bfloat16 and can_stream(weight)


def _for_few_rows(
    weight: torch.Tensor, bias: torch.Tensor | None, widens: bool, kernels: Kernels | None
) -> _Packed | Streamed | None:
    """What reads bfloat16 weights faster than the copy for many rows does, if anything."""
    if kernels is not None and can_stream(weight):
        return Streamed(weight, bias, kernels)
    if not widens or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return None
    fewer = weight.shape[0] < weight.shape[1]
    return _Packed(weight, bias, rows=1 if fewer else USUAL_ROWS)


class JointLinear(nn.Module):
    """One of several linear modules that share a product."""

    def __init__(self, product: JointProduct, index: int) -> None:
        super().__init__()
        self.linear = product.linear
        self._product = product
        self._index = index

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out], a view of the shared product."""
        return self._product.take(self._index, x)


class JointProduct:
    """What several linear modules make of one input, computed for all of them by the first call.

    `linear` makes the outputs of all side by side, `sizes` of each. Each takes its columns once;
    then the result is forgotten.
    """

    def __init__(self, linear: nn.Module, sizes: Sequence[int]) -> None:
        self.linear = linear
        self._sizes = list(sizes)
        self._input: torch.Tensor | None = None
        self._parts: dict[int, torch.Tensor] = {}

    def take(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """The columns of module `index` for this input."""
        if x is not self._input or index not in self._parts:
            out = self.linear(x)
            self._parts = dict(enumerate(out.split_with_sizes(self._sizes, -1)))
            self._input = x
        part = self._parts.pop(index)
        if not self._parts:
            self._input = None
        return part


class _Packed:
    """One weight matrix in oneDNN's blocked layout."""

    most_rows = 1  # beside a wider copy

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, rows: int = USUAL_ROWS
    ) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        self._bias = bias
        self.nbytes = weight.nbytes + (0 if bias is None else bias.nbytes)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self._weight, self._bias, "none", [], ""
        )
        return out
