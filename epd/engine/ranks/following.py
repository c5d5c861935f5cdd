"""The side of the ranks that follow: each order, on this rank's part of the model and its pages."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch

from epd.attention import AttentionBackend, PagedBatch
from epd.engine.chunk import Move
from epd.engine.decode_graphs.capture import Capture, CudaCapture
from epd.engine.kv.cache import KvCache
from epd.engine.language import LanguageModel
from epd.engine.ranks.ends import Ends
from epd.engine.ranks.orders import (
    Build,
    Discard,
    Expect,
    Forward,
    Handing,
    Lend,
    Logits,
    Meet,
    Order,
    Read,
    Record,
    Replay,
    Take,
    Wipe,
    Withdraw,
    Write,
)
from epd.engine.ranks.steps import FollowedSteps
from epd.errors import InternalError
from epd.models.group import Group


class Follower:
    """Does what rank 0 orders, one order after the other. Waits for rank 0 inside of them only."""

    def __init__(
        self,
        part: LanguageModel,
        group: Group,
        backend: AttentionBackend[Any],
        ends: Ends | None = None,
        capture: Capture | None = None,
    ) -> None:
        """`ends`: what hands this rank's KV over without rank 0; None where nothing does.
        `capture` records decode steps; CUDA graphs unless given."""
        self._part = part
        self._group = group
        self._backend = backend
        self._ends = ends
        self._capture = capture
        self._steps: FollowedSteps | None = None
        self._cache: KvCache | None = None

    @torch.inference_mode()
    def follow(self, orders: Iterable[Order]) -> None:
        """Until there are no more."""
        for order in orders:
            if isinstance(order, Build):
                self._build(order)
            elif isinstance(order, Forward):
                self._forward(order)
            elif isinstance(order, Logits):
                hidden = self._shared(order.num, self._part.hidden_size)
                self._group.gather(self._part.logits(hidden).contiguous())
            elif isinstance(order, Handing):
                self._hand_over(order)
            elif isinstance(order, Record):
                capture = self._capture or CudaCapture(self._part.device)
                self._steps = FollowedSteps(
                    self._part, self._group, self._here, self._backend, capture, order
                )
            elif isinstance(order, Replay):
                assert self._steps is not None
                self._steps.replay(order)
            else:
                self._pages(order)

    def _build(self, order: Build) -> None:
        self._cache = KvCache(
            self._part,
            num_blocks=order.num_blocks,
            block_size=order.block_size,
            num_host_blocks=order.num_host_blocks,
        )
        self._group.add_up(torch.zeros(1, device=self._part.device))

    def _forward(self, order: Forward) -> None:
        cache, part = self._here, self._part
        plan = self._backend.bind(
            PagedBatch(order.sequences, cache.keys, cache.values, cache.block_size)
        )
        num = plan.num_new
        embeds = self._shared(num, part.hidden_size)
        shape = (order.axes, num) if order.axes else (num,)
        positions = self._shared(*shape, dtype=torch.float64)
        deepstack = None
        if order.rows:
            places = self._shared(order.rows, dtype=torch.int64)
            deeper = self._shared(part.deepstack_levels, order.rows, part.hidden_size)
            deepstack = places, deeper
        part.forward(embeds, positions, plan, deepstack)

    def _pages(self, order: Read | Write | Move) -> None:
        cache = self._here
        if isinstance(order, Move):
            cache.move(order)
            return
        if isinstance(order, Read):
            self._group.gather(self._read(order))
            return
        kv = torch.empty_like(self._like(order), device=self._part.device)
        self._group.scatter((), kv)
        self._write(order, kv)

    def _hand_over(self, order: Handing) -> None:
        ends = self._ends
        if ends is None:
            raise InternalError("an order to hand over what nothing here can")
        match order:
            case Meet(peer, member):
                ends.meet(peer, member)
            case Lend(task, peer, place, kv):
                ends.lend(task, peer, place, self._read(kv))
            case Withdraw(number):
                ends.withdraw(number)
            case Wipe(offset):
                ends.wipe(offset)
            case Expect(task, peer, place, kv):
                ends.expect(task, peer, place, self._like(kv))
            case Take(task, peer, place, kv):
                ends.take(task, peer, place, self._like(kv), partial(self._write, kv))
            case Discard(peer, slot):
                ends.discard(peer, slot)

    def _write(self, order: Write, part: torch.Tensor) -> None:
        self._here.write(list(order.blocks), order.first_token, order.first_layer, part)

    def _read(self, order: Read) -> torch.Tensor:
        tokens = range(order.first_token, order.first_token + order.num_tokens)
        layers = range(order.first_layer, order.first_layer + order.num_layers)
        return self._here.read(list(order.blocks), tokens, layers)

    def _like(self, order: Write) -> torch.Tensor:
        """What such a write has, without memory."""
        part = self._part
        shape = (2, order.num_layers, order.num_tokens, part.kv_heads, part.head_dim)
        return torch.empty(shape, dtype=part.dtype, device="meta")

    def _shared(self, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """What rank 0 shares next."""
        values = torch.empty(shape, dtype=dtype or self._part.dtype, device=self._part.device)
        self._group.share(values)
        return values

    @property
    def _here(self) -> KvCache:
        if self._cache is None:
            raise InternalError("an order for pages that do not exist yet")
        return self._cache
