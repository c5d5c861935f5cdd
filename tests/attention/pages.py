"""Random sequences, dense and in scattered pages, and what attention over them has to be."""

from __future__ import annotations

import copy
from typing import Any

import torch

from epd.attention import AttentionBackend, PagedBatch, PagedSequence, SingleTokens
from epd.attention.base import Rotary, rotate

# (kv_len, num_new): decodes of several lengths, whole prompts, later chunks, a chunk of one token
RAGGED = [(1, 1), (16, 1), (17, 1), (70, 1), (5, 5), (40, 40), (64, 13), (33, 32), (19, 2), (90, 1)]
LAYERS = 2  # written and read is the last one


class RandomPages:
    """Dense keys and values per sequence, and the same in pages but for the new tokens'.

    What a sequence has not written is `unwritten`. Values are those of `dtype`, compared in double.
    """

    def __init__(
        self,
        shapes: list[tuple[int, int]],
        *,
        heads: int = 6,
        kv_heads: int = 2,
        dim: int = 8,
        block: int = 16,
        blocks: int = 40,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        unwritten: float = torch.nan,
        seed: int = 0,
    ) -> None:
        generator = torch.Generator().manual_seed(seed + len(shapes))
        self.scaling = dim**-0.5

        def rand(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator).to(device, dtype)

        free = torch.randperm(blocks, generator=generator).tolist()
        pages = torch.full((2, LAYERS, blocks * block, kv_heads, dim), unwritten)
        pages = pages.to(device, dtype)
        self.queries = [rand(heads, num, dim) for _, num in shapes]
        self.dense = [rand(2, kv_heads, kv_len, dim) for kv_len, _ in shapes]
        sequences = []
        for (kv_len, num), dense in zip(shapes, self.dense, strict=True):
            own = [free.pop() for _ in range(-(-kv_len // block))]
            sequences.append(PagedSequence(num, kv_len, own))
            for token in range(kv_len - num):
                slot = own[token // block] * block + token % block
                pages[:, :, slot] = dense[:, None, :, token]
        self.batch = PagedBatch(tuple(sequences), pages[0], pages[1], block)
        new = [
            dense[:, :, kv_len - num :]
            for (kv_len, num), dense in zip(shapes, self.dense, strict=True)
        ]
        self.query = torch.cat(self.queries, 1)
        self.new_keys, self.new_values = torch.cat(new, 2)

    def attended(
        self,
        backend: AttentionBackend[Any],
        *,
        batch: SingleTokens | None = None,
        window: int | None = None,
        rotary: Rotary | None = None,
    ) -> torch.Tensor:
        """What the backend says; `batch` in place of the pages' own."""
        return backend.bind(batch or self.batch).attend(
            self.query.clone(),
            self.new_keys,
            self.new_values,
            layer=LAYERS - 1,
            scaling=self.scaling,
            window=window,
            rotary=rotary,
        )

    def expected(self, window: int | None = None) -> torch.Tensor:
        """Dense attention in double, one sequence at a time, in float32."""
        both = zip(self.queries, self.dense, strict=True)
        return torch.cat([self._dense(query, dense, window) for query, dense in both])

    def _dense(self, query: torch.Tensor, dense: torch.Tensor, window: int | None) -> torch.Tensor:
        """[heads, n, dim] against [2, kv_heads, L, dim]."""
        key, value = dense
        group = query.shape[0] // key.shape[0]
        num, kv_len = query.shape[1], key.shape[1]
        scores = query.double() @ key.double().repeat_interleave(group, 0).mT * self.scaling
        seen = torch.ones(num, kv_len, dtype=torch.bool, device=query.device).tril(kv_len - num)
        if window is not None:
            seen = seen.triu(kv_len - num - window + 1)
        chances = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        out: torch.Tensor = chances @ value.double().repeat_interleave(group, 0)
        return out.transpose(0, 1).float()

    def unturned(self) -> tuple[RandomPages, Rotary]:
        """The same with new queries and keys before a rotation by random angles, and these."""
        dim, device = self.query.shape[-1], self.query.device
        generator = torch.Generator().manual_seed(3)
        angles = torch.rand(self.query.shape[1], dim // 2, generator=generator).to(device) * 6
        cos, sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)
        other = copy.copy(self)
        other.query = rotate(self.query.float(), (cos, -sin)).to(self.query.dtype)
        other.new_keys = rotate(self.new_keys.float(), (cos, -sin)).to(self.query.dtype)
        return other, (cos, sin)

    def written(self) -> bool:
        """Are exactly the sequences' own slots of the layer written, with what they should hold?"""
        keys, values = self.batch.keys[-1], self.batch.values[-1]
        rest = torch.ones(len(keys), dtype=torch.bool, device=keys.device)
        for sequence, dense in zip(self.batch.sequences, self.dense, strict=True):
            token = torch.arange(sequence.kv_len)
            size = self.batch.block_size
            slot = torch.tensor(sequence.blocks)[token // size] * size + token % size
            slot = slot.to(keys.device)
            rest[slot] = False
            if not torch.equal(keys[slot].transpose(0, 1), dense[0]):
                return False
            if not torch.equal(values[slot].transpose(0, 1), dense[1]):
                return False
        return bool(keys[rest].isnan().all() and values[rest].isnan().all())
