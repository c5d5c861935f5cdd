"""Rank 0's side: a model and a cache that have the others do their part of everything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from epd.attention.row_writes import Deepstack
from epd.attention.staging import put
from epd.engine.chunk import Move
from epd.engine.kv.cache import KvCache
from epd.engine.language import LanguageModel
from epd.engine.ranks.ends import Place
from epd.engine.ranks.orders import (
    Build,
    Discard,
    Expect,
    Forward,
    Lend,
    Logits,
    Meet,
    Order,
    Read,
    Take,
    Wipe,
    Withdraw,
    Write,
)
from epd.engine.ranks.tasks import Task, Tasks
from epd.engine.ranks.together import together
from epd.models.group import Group
from epd.types import Prompt

Send = Callable[[Order], None]
"""To all other ranks, in order; returns before they have done anything."""


@dataclass(frozen=True, slots=True)
class Lent:
    """What each rank of one worker lends to the other's of its number; `name` is the worker at the
    other end, `member` tells ends of it."""

    name: str
    member: Callable[[], bytes]
    place: Place


class Part(LanguageModel, Protocol):
    """Rank 0's part of a model."""

    def positions(self, prompt: Prompt) -> tuple[torch.Tensor, float]:
        """Rotary positions of a prompt, and the delta of what follows it."""


class LedModel:
    """The whole model, of which `part` is rank 0's. What Engine takes for a language model."""

    def __init__(self, part: Part, group: Group, send: Send, tasks: Tasks | None = None) -> None:
        """`tasks`: where the others' answers come to; without it none is asked for any."""
        self.part = part
        self.group = group
        self.send = send
        self.tasks = tasks or Tasks(group.size - 1)
        self.num_layers = part.num_layers
        self.kv_heads = part.kv_heads * group.size
        self.head_dim = part.head_dim
        self.hidden_size = part.hidden_size
        self.deepstack_levels = part.deepstack_levels
        self.vocab_size = part.vocab_size
        self.dtype = part.dtype
        self.device = part.device
        self._divided = part.vocab_size % group.size == 0

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """[T] -> [T, hidden], on rank 0 alone."""
        return self.part.embed(ids)

    def forward(
        self,
        embeds: torch.Tensor,
        positions: torch.Tensor,
        plan: Any,
        deepstack: Deepstack | None = None,
    ) -> torch.Tensor:
        """As of one model, on all ranks."""
        axes = positions.shape[0] if positions.ndim == 2 else 0
        rows = 0 if deepstack is None else len(deepstack[0])
        self.send(Forward(axes, rows, plan.sequences))
        embeds, positions = embeds.contiguous(), positions.contiguous()
        shared = [embeds, positions]
        if deepstack is not None:
            places, deeper = deepstack
            shared += [places, torch.stack(tuple(deeper))]
        for values in shared:
            self.group.share(values)
        return self.part.forward(embeds, positions, plan, deepstack)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[N, hidden] -> [N, vocab], every rank's columns side by side."""
        if not self._divided:
            return self.part.logits(hidden)
        self.send(Logits(len(hidden)))
        self.group.share(hidden)
        return torch.cat(self.group.gather(self.part.logits(hidden).contiguous()), -1)

    def together(self, embeds: torch.Tensor, positions: torch.Tensor, plan: Any) -> torch.Tensor:
        """[n, hidden] -> [n, vocab], on all ranks at once: what a recorded step computes."""
        return together(self.part, self.group, embeds.contiguous(), positions, plan)

    def positions(self, prompt: Prompt) -> tuple[torch.Tensor, float]:
        """See Part."""
        return self.part.positions(prompt)

    def likeliest(self, hidden: torch.Tensor) -> torch.Tensor | None:
        """No faster way than logits()."""
        return None


class LedCache(KvCache):
    """Pages on all ranks; ranges leave and enter with the heads of all."""

    def __init__(
        self, model: LedModel, *, num_blocks: int, block_size: int, num_host_blocks: int = 0
    ) -> None:
        model.send(Build(num_blocks, block_size, num_host_blocks))
        super().__init__(
            model.part,
            num_blocks=num_blocks,
            block_size=block_size,
            num_host_blocks=num_host_blocks,
        )
        self._group, self._send, self._all_heads = model.group, model.send, model.kv_heads
        self._tasks = model.tasks
        self.num_ranks = model.group.size
        self._peers: dict[str, int] = {}
        self._num_met = 0
        ready = torch.zeros(1, device=model.device)
        self._group.add_up(ready)  # once all ranks have their weights and pages

    def move(self, move: Move) -> None:
        """On every rank."""
        self._send(move)
        super().move(move)

    def read(self, blocks: list[int], tokens: range, layers: range) -> torch.Tensor:
        """See KvCache; the heads of all ranks in their order."""
        self._check_layers(layers)
        self._send(Read(tokens.start, len(tokens), layers.start, len(layers), tuple(blocks)))
        return torch.cat(self._group.gather(super().read(blocks, tokens, layers)), 3)

    def write(self, blocks: list[int], first_token: int, first_layer: int, kv: torch.Tensor) -> int:
        """See KvCache; every rank gets its heads."""
        self.check_range(kv)
        num_layers, num_tokens = kv.shape[1:3]
        self._check_layers(range(first_layer, first_layer + num_layers))
        self._send(Write(first_token, num_tokens, first_layer, num_layers, tuple(blocks)))
        parts = put(kv, self.keys.device).chunk(self._group.size, 3)
        part = torch.empty_like(parts[0], memory_format=torch.contiguous_format)
        self._group.scatter(parts, part)
        return self._put(blocks, first_token, first_layer, part)

    def read_part(self, blocks: list[int], tokens: range, layers: range) -> torch.Tensor:
        """As read(), but rank 0's heads alone."""
        return super().read(blocks, tokens, layers)

    def lend(self, blocks: list[int], tokens: range, layers: range, at: Lent) -> Task:
        """The others put their heads of a range where rank 0 has put its own, in their arenas, or
        keep them until they are asked."""
        number, task = self._tasks.begin()
        kv = Read(tokens.start, len(tokens), layers.start, len(layers), tuple(blocks))
        self._send(Lend(number, self._meet(at), at.place, kv))
        return task

    def withdraw(self, number: int) -> None:
        """The others need not keep what they have under it."""
        self._send(Withdraw(number))

    def expect(self, num_tokens: int, num_layers: int, at: Lent) -> Task:
        """The others fetch their heads of so much, to take them or not when all of them have."""
        number, task = self._tasks.begin()
        kv = Write(0, num_tokens, 0, num_layers, ())
        self._send(Expect(number, self._meet(at), at.place, kv))
        return task

    def discard(self, name: str, slot: int) -> None:
        """What they have fetched of this worker's slot is not taken."""
        if name in self._peers:
            self._send(Discard(self._peers[name], slot))

    def take(
        self, blocks: list[int], first_token: int, first_layer: int, part: torch.Tensor, at: Lent
    ) -> Task:
        """Write rank 0's heads; the others take theirs from where they lie, or have come."""
        self.check_range(part, self.keys.shape[2])
        num_layers, num_tokens = part.shape[1:3]
        self._check_layers(range(first_layer, first_layer + num_layers))
        kv = Write(first_token, num_tokens, first_layer, num_layers, tuple(blocks))
        number, task = self._tasks.begin()
        self._send(Take(number, self._meet(at), at.place, kv))
        self._put(blocks, first_token, first_layer, part)
        return task

    def _meet(self, at: Lent) -> int:
        peer = self._peers.get(at.name)
        if peer is None:
            peer = self._peers[at.name] = self._num_met
            self._num_met += 1
            self._send(Meet(peer, at.member()))
        return peer

    def part_from(self, name: str) -> None:
        """The others let go of this worker's memory."""
        peer = self._peers.pop(name, None)
        if peer is not None:
            self._send(Meet(peer, b""))

    def wipe(self, offset: int) -> None:
        """What was lent there is not any more."""
        self._send(Wipe(offset))

    def _heads(self) -> int:
        return self._all_heads
