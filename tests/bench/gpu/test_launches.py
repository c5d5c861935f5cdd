"""What counts as a launch, and as bytes moved."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from bench.gpu.kernels import as_on_a_card, flash_attn
from bench.gpu.launches import FUSED_LAYER, Launches, counted
from epd.models.torchvision_shim import prepare_torchvision


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(*shape, device="meta", dtype=dtype)


A, B, IDS = meta(4, 8), meta(8, 8), meta(2, dtype=torch.int64)
Q, KV = meta(1, 6, 1, 8), meta(1, 2, 5, 8)

CALLS: dict[str, tuple[Callable[[], object], dict[str, int], int]] = {
    "a product reads both and writes one": (lambda: A @ B, {"matmul": 1}, 4 * (32 + 64 + 32)),
    "views and new memory are free": (
        lambda: (A.t().reshape(32), A.view(32)[None].expand(3, 32), torch.empty_like(A)),
        {"reshape": 1},
        4 * (32 + 32),
    ),
    "a conversion is a copy, to its own dtype it is none": (
        lambda: (A.to(torch.float32), A.to(torch.bfloat16)),
        {"to": 1},
        4 * 32 + 2 * 32,
    ),
    "what is changed in place is counted once": (lambda: A.mul_(2), {"mul_": 1}, 4 * 32),
    "of a table only rows that are asked for": (
        lambda: B.index_select(0, IDS),
        {"index_select": 1},
        2 * 4 * 16,
    ),
    "attention is one": (
        lambda: F.scaled_dot_product_attention(Q, KV, KV, enable_gqa=True),
        {"attention": 1},
        4 * (48 + 80 + 80 + 48),
    ),
    "arithmetic on the host is none": (lambda: torch.ones(3) + 1, {}, 0),
}


@pytest.mark.parametrize("name", CALLS)
def test_operations_are_counted_as_a_card_would_run_them(name: str) -> None:
    call, counts, moved = CALLS[name]
    found = counted(call)
    assert (dict(found.counts), found.moved.total()) == (counts, moved)


def test_the_fused_layer_that_is_compared_with_has_nine_launches() -> None:
    assert len(FUSED_LAYER) == 9


def test_kernels_are_counted_by_what_they_read() -> None:
    """Of pages and logits, not of tables that they only look into."""
    from epd.attention.kernels.silu_mul import silu_mul

    launches = Launches()
    with as_on_a_card(launches.add):
        silu_mul(meta(3, 16))
    assert launches.counts == {"_silu_mul": 1}
    assert launches.moved.total() == 4 * (48 + 24)


def test_a_towers_rotation_is_one_launch_and_was_fourteen() -> None:
    """The docstring's bytes: 4 x instead of 52, and angles once instead of twice."""
    prepare_torchvision()
    from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb_vision

    from epd.attention.kernels.rotary import rotate_patches

    query, key, _ = meta(7, 3, 16, 72, dtype=torch.bfloat16).unbind(1)
    angles = meta(2, 7, 72).unbind(0)
    x, table = query.nbytes, angles[0].nbytes
    eager = counted(lambda: apply_rotary_pos_emb_vision(query, key, *angles))
    assert (eager.counts.total(), eager.moved.total()) == (14, 52 * x + 4 * table)
    launches = Launches()
    with as_on_a_card(launches.add):
        rotate_patches(query, key, *angles)
    assert launches.counts == {"_rotate": 1}
    assert launches.moved.total() == 4 * x + 2 * table


def test_flash_attention_is_one_launch() -> None:
    launches = Launches()
    with flash_attn(launches.add):
        from flash_attn import flash_attn_with_kvcache

        flash_attn_with_kvcache(A, B, B, causal=True)
    assert launches.counts == {"attention": 1}
    assert launches.moved.total() == 4 * (32 + 64 + 64 + 32)
