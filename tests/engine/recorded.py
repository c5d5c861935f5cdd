"""What a GPU does with a decode step, on the CPU: recorded once, replayed on tensors that stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from epd.attention import SdpaBackend, SingleTokens
from epd.engine.decode_graphs import Recorded


class FixedSdpa(SdpaBackend):
    """The reference, whose decode steps look at nothing but tensors when they run."""

    capturable = True

    def decode_plan(self, tokens: SingleTokens) -> Any:
        return tokens

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        layer: int,
        scaling: float,
        plan: Any,
        **more: Any,
    ) -> torch.Tensor:
        if not isinstance(plan, SingleTokens):
            return super().forward(
                query, key, value, layer=layer, scaling=scaling, plan=plan, **more
            )
        keys, values, size = plan.keys[layer], plan.values[layer], plan.block_size
        tables, lengths = plan.tables.long(), plan.lengths.long()
        slots = (tables[..., None] * size + torch.arange(size)).flatten(1)
        live = lengths > 0
        last = slots.gather(1, (lengths - 1).clamp(min=0)[:, None])[:, 0]
        keys[last[live]] = key.transpose(0, 1)[live]
        values[last[live]] = value.transpose(0, 1)[live]
        seen = torch.arange(slots.shape[1]) < lengths[:, None]
        slots = torch.where(seen, slots, slots[:, :1])
        bias = torch.zeros(seen.shape).masked_fill_(~seen, -torch.inf)
        bias = torch.where(live[:, None], bias, 0.0)
        num, kv_heads = len(lengths), keys.shape[1]
        out = F.scaled_dot_product_attention(
            query.transpose(0, 1).reshape(num, kv_heads, -1, query.shape[-1]),
            keys[slots].transpose(1, 2),
            values[slots].transpose(1, 2),
            attn_mask=bias[:, None, None],
            scale=scaling,
        )
        out = out.reshape(num, query.shape[0], query.shape[-1])
        return torch.where(live[:, None, None], out, 0.0)


class Replays:
    """A Capture: runs again what it recorded, into the same memory. `replays` has the sizes.

    It has no memory for more than `most` rows.
    """

    def __init__(self, *, forgetful: bool = False, most: int = 1 << 10) -> None:
        self.recorded: list[int] = []
        self.replays: list[int] = []
        self._forgetful = forgetful
        self._most = most

    def record(self, run: Callable[[], torch.Tensor]) -> Recorded:
        out = run().clone()
        if len(out) > self._most:
            raise RuntimeError("out of memory")
        self.recorded.append(len(out))
        return _Replay(self, run, out, self._forgetful)


class _Replay:
    def __init__(
        self, book: Replays, run: Callable[[], torch.Tensor], out: torch.Tensor, forgetful: bool
    ) -> None:
        self._book, self._run, self._out, self._forgetful = book, run, out, forgetful

    def replay(self) -> torch.Tensor:
        """Forgetful: what was there when it was recorded, as if no input were read anew."""
        self._book.replays.append(len(self._out))
        return self._out if self._forgetful else self._out.copy_(self._run())
