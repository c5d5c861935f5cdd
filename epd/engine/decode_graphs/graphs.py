"""Decode steps replayed on tensors that stay where they are.

A step fills the first rows of the tensors and replays what was recorded for the next larger batch
size. A row of length 0 stands for nothing: attention writes nothing for it, and what it gives is
not looked at.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from tqdm import tqdm

from epd.attention import AttentionBackend, SingleTokens
from epd.attention.staging import Staging
from epd.config.sections import LanguageConfig
from epd.engine.decode_graphs.buckets import Buckets, sizes
from epd.engine.decode_graphs.capture import Capture, CudaCapture, Recorded
from epd.engine.kv.cache import KvCache
from epd.engine.language import LanguageModel
from epd.engine.ranks.leading import LedModel

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DecodeRows:
    """One new token per sequence: rotary positions and lengths, the new token counted, and blocks.

    `ahead` makes their token ids from the host's and from `sources`, [n] int64 on the device; None
    where the host's are all right.
    """

    token_ids: list[int]
    positions: list[float]
    lengths: list[int]
    blocks: list[Sequence[int]]
    sources: list[int]
    ahead: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None


class DecodeGraphs:
    """Records at the start; run() is called by the step thread."""

    @torch.inference_mode()
    def __init__(
        self,
        model: LanguageModel,
        cache: KvCache,
        backend: AttentionBackend[Any],
        staging: Staging,
        capture: Capture,
        buckets: Buckets,
    ) -> None:
        most, device = buckets.sizes[-1], model.device
        self._model, self._cache, self._backend = model, cache, backend
        self._staging = staging
        self._buckets = buckets
        self._ids = torch.zeros(most, dtype=torch.int64, device=device)
        self._positions = torch.zeros(most, dtype=torch.float64, device=device)
        self._lengths = torch.zeros(most, dtype=torch.int32, device=device)
        self._tables = torch.zeros(most, buckets.most_blocks, dtype=torch.int32, device=device)
        self._recorded: dict[int, Recorded] = {}
        self._record(capture)

    def _record(self, capture: Capture) -> None:
        """What cannot be recorded runs without, and the log says once why."""
        failed: dict[str, list[int]] = defaultdict(list)
        # The largest first: the others find room in its memory.
        sizes = self._buckets.sizes[::-1]
        for size in tqdm(sizes, desc="recording decode steps", unit="size", disable=None):
            try:
                self._recorded[size] = capture.record(partial(self._forward, size))
            except RuntimeError as error:
                failed[str(error)].append(size)
        for reason, without in failed.items():
            names = ", ".join(map(str, sorted(without)))
            log.warning("decode steps of batch size %s are not recorded: %s", names, reason)

    def size_for(self, blocks: Sequence[Sequence[int]]) -> int | None:
        """Which batch these sequences would run in; None where they have to run without."""
        size = self._buckets.size_for([len(each) for each in blocks])
        return size if size in self._recorded else None

    def run(self, size: int, rows: DecodeRows) -> torch.Tensor:
        """Logits [n, vocab]; they stay until the next run()."""
        num = len(rows.token_ids)
        width = max(map(len, rows.blocks))
        tables = [[*blocks, *([0] * (width - len(blocks)))] for blocks in rows.blocks]
        parts = [
            torch.tensor(rows.token_ids),
            torch.tensor(rows.positions, dtype=torch.float64),
            torch.tensor(rows.lengths + [0] * (size - num), dtype=torch.int32),
            torch.tensor(tables, dtype=torch.int32),
            torch.tensor(rows.sources, dtype=torch.int64),
        ]
        ids, positions, lengths, table, sources = self._staging.send(parts)
        self._ids[:num].copy_(ids if rows.ahead is None else rows.ahead(ids, sources))
        self._positions[:num].copy_(positions)
        self._lengths[:size].copy_(lengths)
        self._tables[:num, :width].copy_(table)
        return self._recorded[size].replay()[:num]

    def _forward(self, size: int) -> torch.Tensor:
        """[size, vocab]: what is recorded."""
        cache = self._cache
        tokens = SingleTokens(
            cache.keys, cache.values, cache.block_size, self._tables[:size], self._lengths[:size]
        )
        embeds = self._model.embed(self._ids[:size])
        hidden = self._model.forward(embeds, self._positions[:size], self._backend.bind(tokens))
        return self._model.logits(hidden)


def _why_not(model: LanguageModel, backend: AttentionBackend[Any]) -> str | None:
    """Why no step can be recorded; None if one can."""
    if isinstance(model, LedModel):
        return f"tp is {model.group.size}, and orders to other ranks are no work of the GPU"
    return None if backend.capturable else f"attention is {backend.name}, which plans on the host"


def graphs_for(
    model: LanguageModel,
    cache: KvCache,
    backend: AttentionBackend[Any],
    staging: Staging,
    config: LanguageConfig,
    capture: Capture | None,
) -> DecodeGraphs | None:
    """Recorded by `capture`, as CUDA graphs unless given; None where nothing can record them."""
    if capture is None and model.device.type == "cuda" and config.cuda_graphs:
        capture = CudaCapture(model.device)
    if capture is None:
        return None
    if (reason := _why_not(model, backend)) is not None:
        log.info("decode steps are not recorded: %s", reason)
        return None
    most_tokens = cache.keys.shape[1]
    if config.max_context is not None:
        most_tokens = min(most_tokens, config.max_context)
    buckets = Buckets(sizes(config.max_running), -(-most_tokens // cache.block_size))
    return DecodeGraphs(model, cache, backend, staging, capture, buckets)
