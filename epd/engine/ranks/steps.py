"""Recorded decode steps of a rank that follows.

Every rank records the same sizes in the same order, and replays one where rank 0 says so, in the
order of all other orders: so the collectives inside meet each other. One that cannot record ends,
and with it its worker.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from epd.attention import AttentionBackend
from epd.attention.staging import staging_for
from epd.engine.decode_graphs.buckets import Buckets
from epd.engine.decode_graphs.capture import Capture, Recorded
from epd.engine.decode_graphs.tensors import StepTensors
from epd.engine.kv.cache import KvCache
from epd.engine.language import LanguageModel
from epd.engine.ranks.orders import Record, Replay
from epd.engine.ranks.together import together
from epd.models.group import Group


class FollowedSteps:
    """Made by one order, replayed by others."""

    @torch.inference_mode()
    def __init__(
        self,
        part: LanguageModel,
        group: Group,
        cache: KvCache,
        backend: AttentionBackend[Any],
        capture: Capture,
        order: Record,
    ) -> None:
        self._part, self._group, self._cache, self._backend = part, group, cache, backend
        buckets = Buckets(order.sizes, order.most_blocks)
        self._tensors = StepTensors(buckets, staging_for(part.device), part.device)
        self._embeds = torch.zeros(
            order.sizes[-1], part.hidden_size, dtype=part.dtype, device=part.device
        )
        self._recorded: dict[int, Recorded] = {
            size: capture.record(partial(self._forward, size)) for size in order.sizes[::-1]
        }

    def replay(self, order: Replay) -> None:
        """One step, as rank 0 orders it."""
        positions = torch.tensor(order.positions).view(torch.float64)
        self._tensors.fill(order.size, positions, order.lengths, order.blocks)
        self._recorded[order.size].replay()

    def _forward(self, size: int) -> torch.Tensor:
        tokens = self._tensors.tokens(size, self._cache)
        plan = self._backend.bind(tokens)
        embeds, positions = self._embeds[:size], self._tensors.positions(size)
        return together(self._part, self._group, embeds, positions, plan)
