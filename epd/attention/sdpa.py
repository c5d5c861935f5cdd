"""Attention with torch's scaled_dot_product_attention: any device, the reference of all others.

Single new tokens (decode) go together, in one call as long as padding costs less than another
call; a chunk of several new tokens (prefill) is a call of its own.

A masked slot still takes part in the arithmetic (0 * NaN is NaN), so padding never points to a
slot that this sequence has not written: broken values of one request cannot reach another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch.nn.attention.bias import causal_lower_right

from epd.attention import products
from epd.attention.base import AttentionBackend, PagedBatch, PagedSequence, Rotary
from epd.attention.staging import put

# Padded tokens that one decode call may gather: bounds its temporary memory.
MAX_GATHERED = 1 << 16
# Padding that one decode call may add: gathering and masking it takes about as long as a call.
MAX_PADDING = 1 << 10


@dataclass(frozen=True, slots=True)
class DecodeGroup:
    """Sequences with one new token each: B of them, padded to L slots.

    `rows` of the packed batch, a slice where they are neighbours. `bias` [B, 1, 1, L] hides the
    padding; None where there is none.
    """

    rows: slice | torch.Tensor
    slots_BL: torch.Tensor
    bias: torch.Tensor | None
    lengths: tuple[int, ...]
    dtype: torch.dtype

    def within(self, window: int) -> DecodeGroup:
        """The same where a token sees only the last `window` ones: no others are gathered."""
        if window >= max(self.lengths):
            return self
        device = self.slots_BL.device
        ends = torch.tensor(self.lengths)[:, None]
        at = (ends - window).clamp(0) + torch.arange(window)
        slots = self.slots_BL.gather(1, put(at.clamp(max=ends.max() - 1), device))
        seen = put(at < ends, device)
        return replace(self, slots_BL=slots, bias=_bias(seen, self.dtype)[:, None, None])


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """Packed rows [start, end) of one sequence.

    `slots` and `bias` [new, all] are None where nothing came before: causal, over itself alone.
    """

    rows: slice
    slots: torch.Tensor | None
    bias: torch.Tensor | None
    num: int
    kv_len: int

    def within(self, window: int, pages: torch.Tensor) -> PrefillChunk:
        """The same where each row sees only the last `window` tokens."""
        if window >= self.kv_len:
            return self
        before = self.kv_len - self.num
        hidden = max(0, before - window + 1)  # from every row
        seen = torch.ones(self.num, self.kv_len - hidden, dtype=torch.bool, device=pages.device)
        before -= hidden
        bias = _bias(seen.tril(before).triu(before - window + 1), pages.dtype)
        slots = None if self.slots is None else self.slots[hidden:]
        return replace(self, slots=slots, bias=bias)


@dataclass(frozen=True, slots=True)
class SdpaPlan:
    """One step: the slot that every new token is written to, and who attends to which."""

    keys: torch.Tensor
    values: torch.Tensor
    new_slots: torch.Tensor
    parts: tuple[DecodeGroup | PrefillChunk, ...]
    windowed: dict[int, tuple[DecodeGroup | PrefillChunk, ...]] = field(default_factory=dict)

    def within(self, window: int | None) -> tuple[DecodeGroup | PrefillChunk, ...]:
        """`parts` where a token sees only the last `window` ones: made once for all layers."""
        if window is None:
            return self.parts
        if window not in self.windowed:
            self.windowed[window] = tuple(
                part.within(window)
                if isinstance(part, DecodeGroup)
                else part.within(window, self.keys)
                for part in self.parts
            )
        return self.windowed[window]


class SdpaBackend(AttentionBackend[SdpaPlan]):
    """The reference backend."""

    name = "sdpa"

    def plan(self, batch: PagedBatch) -> SdpaPlan:
        """Block tables become slot numbers, once for all layers."""
        single: list[tuple[int, PagedSequence]] = []
        chunks = []
        new_slots = []
        row = 0
        for sequence in batch.sequences:
            new_slots += _new_slots(sequence, batch.block_size)
            if sequence.num_new == 1:
                single.append((row, sequence))
            else:
                chunks.append(_prefill_chunk(sequence, row, batch))
            row += sequence.num_new
        decodes = [_decode_group(group, batch) for group in _groups(single)]
        return SdpaPlan(
            keys=batch.keys,
            values=batch.values,
            new_slots=put(torch.tensor(new_slots, dtype=torch.int64), batch.keys.device),
            parts=(*decodes, *chunks),
        )

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        layer: int,
        scaling: float,
        plan: SdpaPlan,
        window: int | None = None,
        rotary: Rotary | None = None,
    ) -> torch.Tensor:
        """See AttentionBackend.forward."""
        assert rotary is None
        keys, values = plan.keys[layer], plan.values[layer]
        keys.index_copy_(0, plan.new_slots, key.transpose(0, 1))
        values.index_copy_(0, plan.new_slots, value.transpose(0, 1))
        outs = []
        for part in plan.within(window):
            picked = query[:, part.rows]
            if isinstance(part, DecodeGroup):
                outs.append(_decode(picked, keys, values, part, scaling))
                continue
            if part.slots is None:
                k, v = key[:, part.rows], value[:, part.rows]
            else:
                k = _gather(keys, part.slots).transpose(0, 1)
                v = _gather(values, part.slots).transpose(0, 1)
            outs.append(_prefill(picked, k, v, part.bias, scaling))
        if len(outs) == 1:
            return outs[0]
        out = query.new_empty(query.shape[1], query.shape[0], query.shape[2])
        for part, rows_out in zip(plan.parts, outs, strict=True):
            out[part.rows] = rows_out
        return out


def _decode(
    query_HBD: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    group: DecodeGroup,
    scaling: float,
) -> torch.Tensor:
    """The query heads of one KV head are rows of one small matrix: nothing is expanded."""
    heads, num, dim = query_HBD.shape
    kv_heads = keys.shape[1]
    out = F.scaled_dot_product_attention(
        query_HBD.transpose(0, 1).reshape(num, kv_heads, heads // kv_heads, dim),
        _gather(keys, group.slots_BL).transpose(1, 2),
        _gather(values, group.slots_BL).transpose(1, 2),
        attn_mask=group.bias,
        scale=scaling,
    )
    return out.reshape(num, heads, dim)


def _prefill(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
    scaling: float,
) -> torch.Tensor:
    """[heads, T, dim] and [kv_heads, L, dim] -> [T, heads, dim]."""
    if products.takes(query.device, query.dtype):
        return products.attend(query, key, value, scaling, bias).transpose(0, 1)
    out = F.scaled_dot_product_attention(
        query[None],
        key[None],
        value[None],
        attn_mask=bias,
        is_causal=bias is None,
        scale=scaling,
        enable_gqa=True,
    )
    return out[0].transpose(0, 1)


def _gather(pages: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """Slots [...] of [slots, heads, dim] -> [..., heads, dim]; far faster than pages[slots]."""
    return pages.index_select(0, slots.flatten()).view(*slots.shape, *pages.shape[1:])


def _new_slots(sequence: PagedSequence, block_size: int) -> list[int]:
    first = sequence.kv_len - sequence.num_new
    return [
        sequence.blocks[token // block_size] * block_size + token % block_size
        for token in range(first, sequence.kv_len)
    ]


def _prefill_chunk(sequence: PagedSequence, row: int, batch: PagedBatch) -> PrefillChunk:
    num, kv_len = sequence.num_new, sequence.kv_len
    rows = slice(row, row + num)
    if num == kv_len:
        dense = products.takes(batch.keys.device, batch.keys.dtype)
        bias = _lower_right(num, num, batch.keys) if dense else None
        return PrefillChunk(rows, None, bias, num, kv_len)
    device = batch.keys.device
    slots = _slots(torch.tensor(sequence.blocks), batch.block_size)[:kv_len]
    return PrefillChunk(
        rows, put(slots, device), _lower_right(num, kv_len, batch.keys), num, kv_len
    )


def _lower_right(num: int, kv_len: int, pages: torch.Tensor) -> torch.Tensor:
    """What hides the future from the last `num` of `kv_len` tokens.

    CUDA's kernels know this shape by name. On the CPU a dense tensor costs attention 4 to 10 %.
    """
    if pages.is_cuda:
        return causal_lower_right(num, kv_len)
    seen = torch.ones(num, kv_len, dtype=torch.bool, device=pages.device).tril(kv_len - num)
    return _bias(seen, pages.dtype)


def _groups(
    rows: list[tuple[int, PagedSequence]],
) -> list[list[tuple[int, PagedSequence]]]:
    """Which sequences share a call: similar lengths, within MAX_PADDING and MAX_GATHERED."""
    groups: list[list[tuple[int, PagedSequence]]] = []
    longest = padding = 0
    for row in sorted(rows, key=lambda row: -row[1].kv_len):
        padding += longest - row[1].kv_len
        if groups and padding <= MAX_PADDING and (len(groups[-1]) + 1) * longest <= MAX_GATHERED:
            groups[-1].append(row)
        else:
            groups.append([row])
            longest, padding = row[1].kv_len, 0
    return [sorted(group, key=lambda row: row[0]) for group in groups]


def _decode_group(rows: Sequence[tuple[int, PagedSequence]], batch: PagedBatch) -> DecodeGroup:
    device = batch.keys.device
    lengths = [sequence.kv_len for _, sequence in rows]
    longest = max(lengths)
    num_blocks = -(-longest // batch.block_size)
    tables = []
    for _, sequence in rows:
        own = list(sequence.blocks[:num_blocks])
        tables.append(own + [own[0]] * (num_blocks - len(own)))
    slots = put(_slots(torch.tensor(tables), batch.block_size)[:, :longest], device)
    where = _where([row for row, _ in rows], device)
    if min(lengths) == longest:
        return DecodeGroup(where, slots, None, tuple(lengths), batch.keys.dtype)
    seen = torch.arange(longest, device=device) < put(torch.tensor(lengths)[:, None], device)
    bias = _bias(seen, batch.keys.dtype)[:, None, None]
    slots = torch.where(seen, slots, slots[:, :1])
    return DecodeGroup(where, slots, bias, tuple(lengths), batch.keys.dtype)


def _where(rows: list[int], device: torch.device) -> slice | torch.Tensor:
    """Neighbouring rows as a slice, which is a view."""
    if rows[-1] - rows[0] == len(rows) - 1:
        return slice(rows[0], rows[-1] + 1)
    return put(torch.tensor(rows), device)


def _bias(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What is added to scores, in their dtype: a boolean mask would become this in every layer."""
    return torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, -torch.inf)


def _slots(tables: torch.Tensor, block_size: int) -> torch.Tensor:
    """Block numbers [..., n] -> slot numbers [..., n * block_size]."""
    return (tables[..., None] * block_size + torch.arange(block_size)).flatten(-2)
