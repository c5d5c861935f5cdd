"""Ready-made embeddings: what torch and safetensors write is read, and nothing else."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from safetensors.torch import save as safe_saved

from epd.errors import TooLarge
from epd.media.tensors import read_tensors
from tests.media.saved_tensors import (
    LIMITS,
    PLAIN,
    read,
    refusal,
    safe,
    same,
    torch_saved,
)

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32, torch.int64]
REFUSED = [torch.bool, torch.uint8, torch.int16, torch.complex64, torch.float8_e4m3fn]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_allowed_dtype_comes_back(dtype: torch.dtype) -> None:
    """From both formats, with as many dimensions as there are."""
    for shape in ((), (1,), (24,), (4, 6), (2, 3, 4), (1, 2, 1, 3, 4, 1)):
        count = int(np.prod(shape))
        tensor = (torch.arange(count) - count // 2).to(dtype).reshape(shape)
        same(read(torch_saved(tensor)), tensor)
        same(read(safe_saved({"anything": tensor})), tensor)


@pytest.mark.parametrize("dtype", REFUSED, ids=str)
def test_other_dtypes_are_refused(dtype: torch.dtype) -> None:
    """By the list of the allowed ones, or as something that is not plain."""
    tensor = torch.zeros(4).to(dtype)
    listed = "its dtype is none of float16, bfloat16, float32, float64, int32, int64"
    assert refusal(torch_saved(tensor)) in (listed, PLAIN)
    assert refusal(safe_saved({"rows": tensor})) == listed


VIEWS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "slice": lambda t: t[1:, ::2],
    "transposed": lambda t: t.T,
    "one row": lambda t: t[3],
    "last value": lambda t: t[-1, -1],
    "diagonal": lambda t: t.diagonal(),
    "expanded": lambda t: t[:, :1].expand(6, 9),
    "windows": lambda t: t.flatten().unfold(0, 4, 1),
    "wants gradients": lambda t: t.clone().requires_grad_(),
}


@pytest.mark.parametrize("view", VIEWS)
def test_views_are_read_as_torch_reads_them(view: str) -> None:
    """torch saves the whole storage and how to look at it."""
    tensor = VIEWS[view](torch.arange(48.0).reshape(6, 8))
    same(read(torch_saved(tensor)), tensor)


def test_the_named_tensor_is_taken_of_several() -> None:
    """Of one, whatever it is called; of several, none but the named."""
    data = safe_saved({"rows": torch.ones(2), "grid": torch.zeros(3)})
    same(read(data), torch.ones(2))
    same(read(data, "grid"), torch.zeros(3))
    assert refusal(safe_saved({"a": torch.ones(2), "b": torch.zeros(3)})) == (
        "it holds 2 tensors, none of that name"
    )
    assert refusal(safe({})) == "it holds 0 tensors, none of that name"


class Sub(torch.Tensor):
    """A subclass, as user code has them."""


NOT_PLAIN: dict[str, object] = {
    "dict": {"rows": torch.ones(2)},
    "list": [torch.ones(2)],
    "number": 3,
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "module": torch.nn.Linear(2, 2),
    "subclass": torch.ones(2).as_subclass(Sub),
    "sparse": torch.eye(3).to_sparse(),
    "meta": torch.ones(2, device="meta"),
    "negative bit": torch.ones(2)._neg_view(),
    "numpy": np.ones(2),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", NOT_PLAIN)
def test_whatever_else_torch_can_save_is_refused(kind: str) -> None:
    """Each of them needs code to be made again."""
    assert refusal(torch_saved(NOT_PLAIN[kind])) == PLAIN


@pytest.mark.filterwarnings("ignore")
def test_quantised_and_compressed_sparse_tensors_are_refused() -> None:
    """Their parts may contradict each other, which kernels do not check."""
    for tensor in (
        torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        torch.eye(3).to_sparse_csr(),
    ):
        refusal(torch_saved(tensor))


def test_the_old_format_is_refused_by_name() -> None:
    """A bare pickle, from before torch 1.6."""
    file = io.BytesIO()
    torch.save(torch.ones(2), file, _use_new_zipfile_serialization=False)
    assert "before torch 1.6" in refusal(file.getvalue())


def test_values_that_are_not_finite_are_refused() -> None:
    """They would spread to whatever shares a page of KV with them."""
    for value in (float("nan"), float("inf"), -float("inf")):
        for dtype in (torch.float16, torch.bfloat16, torch.float64):
            tensor = torch.tensor([0.0, value]).to(dtype)
            assert refusal(torch_saved(tensor)) == "it holds values that are not finite"


def test_large_files_are_refused_first() -> None:
    """Whatever they hold."""
    for data in (b"PK\3\4" + bytes(1 << 20), b"\x80" * ((1 << 20) + 1)):
        with pytest.raises(TooLarge, match="rows: file larger than 1048576 bytes"):
            read_tensors("rows", data, LIMITS)
