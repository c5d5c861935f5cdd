"""flash-attn's two functions, with its names, order and checks of arguments, computed in torch.

Signatures and limits are those of flash_attn/flash_attn_interface.py (version 2) and
hopper/flash_attn_interface.py (version 3) in the public repository Dao-AILab/flash-attention.
"""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch

calls: list[str] = []


def module(version: int) -> ModuleType:
    """What `import flash_attn` (2) or `import flash_attn_interface` (3) would give."""
    name = {2: "flash_attn", 3: "flash_attn_interface"}[version]
    made = ModuleType(name)
    made.__spec__ = ModuleSpec(name, None)
    functions: dict[str, Any] = {
        "flash_attn_with_kvcache": with_kvcache_2 if version == 2 else with_kvcache_3,
        "flash_attn_varlen_func": varlen_2 if version == 2 else varlen_3,
    }
    vars(made).update(functions)
    return made


def varlen_2(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    block_table: torch.Tensor | None = None,
) -> torch.Tensor:
    """q [total, heads, dim]; k and v [blocks, page, kv_heads, dim]."""
    calls.append("varlen 2")
    assert block_table is not None and dropout_p == 0.0 and not return_attn_probs
    _check_pages(q, k, v, block_table, multiple=256)
    assert q.ndim == 3 and len(block_table) + 1 == len(cu_seqlens_q) == len(cu_seqlens_k)
    for starts, longest in ((cu_seqlens_q, max_seqlen_q), (cu_seqlens_k, max_seqlen_k)):
        assert starts.dtype == torch.int32 and starts[0] == 0 and starts.is_contiguous()
        assert type(longest) is int and longest == int(starts.diff().max())
    assert int(cu_seqlens_q[-1]) == len(q)
    lengths = cu_seqlens_k.diff()
    return _ragged(q, k, v, cu_seqlens_q, lengths, block_table, softmax_scale, causal, window_size)


def varlen_3(*args: object, **kwargs: object) -> torch.Tensor:
    """Version 3's takes no block table."""
    raise AssertionError("flash_attn_varlen_func of version 3 reads no pages")


def with_kvcache_2(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    k: None = None,
    v: None = None,
    rotary_cos: None = None,
    rotary_sin: None = None,
    cache_seqlens: torch.Tensor | None = None,
    cache_batch_idx: None = None,
    cache_leftpad: None = None,
    block_table: torch.Tensor | None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    rotary_interleaved: bool = True,
    alibi_slopes: None = None,
    num_splits: int = 0,
    return_softmax_lse: bool = False,
) -> torch.Tensor:
    """q [batch, 1, heads, dim]."""
    calls.append("kvcache 2")
    assert block_table is not None and cache_seqlens is not None
    _check_pages(q, k_cache, v_cache, block_table, multiple=256)
    return _batched(
        q, k_cache, v_cache, cache_seqlens, block_table, softmax_scale, causal, window_size
    )


def with_kvcache_3(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    k: None = None,
    v: None = None,
    qv: None = None,
    rotary_cos: None = None,
    rotary_sin: None = None,
    cache_seqlens: torch.Tensor | None = None,
    cache_batch_idx: None = None,
    cache_leftpad: None = None,
    page_table: torch.Tensor | None = None,
    cu_seqlens_q: torch.Tensor | None = None,
    cu_seqlens_k_new: None = None,
    max_seqlen_q: int | None = None,
    rotary_seqlens: None = None,
    q_descale: None = None,
    k_descale: None = None,
    v_descale: None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    attention_chunk: int = 0,
    softcap: float = 0.0,
    rotary_interleaved: bool = True,
    scheduler_metadata: None = None,
    num_splits: int = 0,
    pack_gqa: None = None,
    sm_margin: int = 0,
    return_softmax_lse: bool = False,
) -> torch.Tensor:
    """q [batch, 1, heads, dim], or [total, heads, dim] with `cu_seqlens_q`."""
    calls.append("kvcache 3" if cu_seqlens_q is None else "kvcache 3 ragged")
    assert page_table is not None and cache_seqlens is not None
    _check_pages(q, k_cache, v_cache, page_table, multiple=1)
    shared = (page_table, softmax_scale, causal, window_size)
    if cu_seqlens_q is None:
        return _batched(q, k_cache, v_cache, cache_seqlens, *shared)
    assert q.ndim == 3 and cu_seqlens_q.dtype == torch.int32 and int(cu_seqlens_q[-1]) == len(q)
    assert max_seqlen_q == int(cu_seqlens_q.diff().max())
    return _ragged(q, k_cache, v_cache, cu_seqlens_q, cache_seqlens, *shared)


def _check_pages(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, table: torch.Tensor, *, multiple: int
) -> None:
    assert q.dtype in {torch.float16, torch.bfloat16} and q.dtype == k.dtype == v.dtype
    assert q.stride(-1) == k.stride(-1) == v.stride(-1) == 1
    assert k.ndim == 4 and k.shape == v.shape and k.shape[-1] == q.shape[-1] <= 256
    assert q.shape[-1] % 8 == 0 and q.shape[-2] % k.shape[-2] == 0
    assert k.shape[1] % multiple == 0, "Paged KV cache block size must be divisible by 256"
    assert table.dtype == torch.int32 and table.ndim == 2 and table.stride(-1) == 1


def _batched(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    lengths: torch.Tensor,
    table: torch.Tensor,
    scale: float | None,
    causal: bool,
    window: tuple[int, int],
) -> torch.Tensor:
    assert q.ndim == 4 and len(q) == len(lengths) == len(table)
    starts = torch.arange(len(q) + 1, dtype=torch.int32) * q.shape[1]
    flat = _ragged(q.flatten(0, 1), k, v, starts, lengths, table, scale, causal, window)
    return flat.view(q.shape)


def _ragged(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    starts: torch.Tensor,
    lengths: torch.Tensor,
    table: torch.Tensor,
    scale: float | None,
    causal: bool,
    window: tuple[int, int],
) -> torch.Tensor:
    assert lengths.dtype == torch.int32 and scale is not None
    out = torch.empty_like(q)
    page, group = k.shape[1], q.shape[1] // k.shape[2]
    for n, length in enumerate(lengths.tolist()):
        pages = table[n, : -(-length // page)].long()
        keys = k[pages].flatten(0, 1)[:length].double().repeat_interleave(group, 1)
        values = v[pages].flatten(0, 1)[:length].double().repeat_interleave(group, 1)
        rows = slice(int(starts[n]), int(starts[n + 1]))
        scores = torch.einsum("qhd,khd->hqk", q[rows].double(), keys) * scale
        after = length - scores.shape[1] + torch.arange(scores.shape[1])[:, None]
        after = after - torch.arange(length)
        left, right = window
        right = 0 if causal else right
        hidden = (after < -right) if right >= 0 else torch.zeros_like(after, dtype=torch.bool)
        if left >= 0:
            hidden |= after > left
        chances = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        out[rows] = torch.einsum("hqk,khd->qhd", chances, values).to(q.dtype)
    return out
