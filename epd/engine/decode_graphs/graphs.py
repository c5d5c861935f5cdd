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

from epd.attention import AttentionBackend
from epd.attention.staging import Staging
from epd.config.sections import LanguageConfig
from epd.engine.decode_graphs.buckets import Buckets, sizes
from epd.engine.decode_graphs.capture import Capture, CudaCapture, Recorded
from epd.engine.decode_graphs.tensors import StepTensors
from epd.engine.kv.cache import KvCache
from epd.engine.language import LanguageModel
from epd.engine.ranks.leading import LedModel
from epd.engine.ranks.orders import Record, Replay

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
        self._model, self._cache, self._backend = model, cache, backend
        self._buckets = buckets
        self._tensors = StepTensors(buckets, staging, model.device)
        self._ids = torch.zeros(buckets.sizes[-1], dtype=torch.int64, device=model.device)
        if isinstance(model, LedModel):
            model.send(Record(buckets.most_blocks, buckets.sizes))
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
        num, model = len(rows.token_ids), self._model
        positions = torch.tensor(rows.positions, dtype=torch.float64)
        if isinstance(model, LedModel):
            bits, blocks = positions.view(torch.int64).tolist(), tuple(map(tuple, rows.blocks))
            model.send(Replay(size, tuple(bits), tuple(rows.lengths), blocks))
        ids, sources = self._tensors.fill(
            size,
            positions,
            rows.lengths,
            rows.blocks,
            torch.tensor(rows.token_ids),
            torch.tensor(rows.sources, dtype=torch.int64),
        )
        self._ids[:num].copy_(ids if rows.ahead is None else rows.ahead(ids, sources))
        return self._recorded[size].replay()[:num]

    def _forward(self, size: int) -> torch.Tensor:
        """[size, vocab]: what is recorded."""
        plan = self._backend.bind(self._tensors.tokens(size, self._cache))
        embeds, positions = self._model.embed(self._ids[:size]), self._tensors.positions(size)
        if isinstance(self._model, LedModel):
            return self._model.together(embeds, positions, plan)
        return self._model.logits(self._model.forward(embeds, positions, plan))


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
    if not backend.capturable:
        reason = f"attention is {backend.name}, which plans on the host"
        log.info("decode steps are not recorded: %s", reason)
        return None
    most_tokens = cache.keys.shape[1]
    if config.max_context is not None:
        most_tokens = min(most_tokens, config.max_context)
    buckets = Buckets(sizes(config.max_running), -(-most_tokens // cache.block_size))
    return DecodeGraphs(model, cache, backend, staging, capture, buckets)
