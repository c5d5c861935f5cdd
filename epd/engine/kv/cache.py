"""The tensors of the KV cache, and copies of token ranges in and out of them.

Outside this file, the attention backends and epd.models.compiled nobody knows how pages are laid
out: a range leaves and enters as [2 (K, V), layers, tokens, kv_heads, head_dim].
"""

from __future__ import annotations

import contextlib
import math
import mmap

import torch

from epd.attention.staging import put
from epd.config.sections import LanguageConfig
from epd.engine.chunk import Move, MoveKind
from epd.engine.language import LanguageModel
from epd.errors import ConfigError, InternalError


def num_blocks(model: LanguageModel, config: LanguageConfig) -> int:
    """Whole blocks that the configured capacity gives."""
    tokens = config.kv_tokens or config.kv_capacity // _token_bytes(model)
    if tokens < config.block_size:
        raise ConfigError(
            f"the KV cache holds {tokens} tokens, less than one block of {config.block_size}; "
            "raise language.kv_bytes or language.kv_tokens"
        )
    return tokens // config.block_size


def num_host_blocks(model: LanguageModel, config: LanguageConfig) -> int:
    """Blocks of preempted requests that fit into the host memory that is configured."""
    return config.host_bytes // (_token_bytes(model) * config.block_size)


class KvCache:
    """Pages of all layers: `keys` and `values` are [layers, slots, kv_heads, head_dim].

    Beside them host memory for `num_host_blocks` pages of preempted requests: [host blocks, 2,
    layers, block_size, kv_heads, head_dim], pinned for a CUDA device.
    """

    def __init__(
        self, model: LanguageModel, *, num_blocks: int, block_size: int, num_host_blocks: int = 0
    ) -> None:
        self.block_size = block_size
        slots = num_blocks * block_size
        shape = (2, model.num_layers, slots, model.kv_heads, model.head_dim)
        self._pages = _zeros(shape, model.dtype, model.device)
        self.keys, self.values = self._pages[0], self._pages[1]
        block = (2, model.num_layers, block_size, model.kv_heads, model.head_dim)
        self._host = _host_pages((num_host_blocks, *block), model.dtype, model.device)

    def move(self, move: Move) -> None:
        """Copy whole pages. On a CUDA device nothing waits: all copies are in stream order."""
        if move.kind is MoveKind.COPY:
            shape = self._pages.shape
            blocks = self._pages.view(*shape[:2], -1, self.block_size, *shape[3:])
            pairs = put(torch.tensor(move.pairs), blocks.device)
            blocks.index_copy_(2, pairs[:, 1], blocks.index_select(2, pairs[:, 0]))
            return
        for source, target in move.pairs:
            if move.kind is MoveKind.SAVE:
                self._host[target].copy_(self._block(source), non_blocking=True)
            else:
                self._block(target).copy_(self._host[source], non_blocking=True)

    def read(self, blocks: list[int], tokens: range, layers: range) -> torch.Tensor:
        """An owned, contiguous copy of a token range x layer range."""
        self._check_layers(layers)
        pages = self._pages[:, layers.start : layers.stop]
        return pages.index_select(2, self._slots(blocks, tokens))

    def write(self, blocks: list[int], first_token: int, first_layer: int, kv: torch.Tensor) -> int:
        """Copy a range in; the number of its tokens."""
        self.check_range(kv)
        return self._put(blocks, first_token, first_layer, kv)

    def _put(self, blocks: list[int], first_token: int, first_layer: int, kv: torch.Tensor) -> int:
        num_layers, num_tokens = kv.shape[1:3]
        layers = range(first_layer, first_layer + num_layers)
        self._check_layers(layers)
        slots = self._slots(blocks, range(first_token, first_token + num_tokens))
        pages = self._pages[:, layers.start : layers.stop]
        pages.index_copy_(2, slots, put(kv, pages.device))
        return int(num_tokens)

    def check_range(self, kv: torch.Tensor, heads: int | None = None) -> None:
        """Does this look like a range of this cache, with all heads unless told?"""
        want = self._pages.shape
        shape = kv.shape
        heads, dtype = heads or self._heads(), self._pages.dtype
        if kv.ndim != 5 or shape[0] != 2 or shape[3:] != (heads, want[4]) or kv.dtype != dtype:
            raise InternalError(
                f"KV of shape {tuple(shape)} and {kv.dtype} does not fit "
                f"[2, layers, tokens, {heads}, {want[4]}] in {dtype}"
            )

    def _heads(self) -> int:
        """KV heads of a range."""
        return self._pages.shape[3]

    def _block(self, number: int) -> torch.Tensor:
        """[2, layers, block_size, kv_heads, head_dim], not a copy."""
        return self._pages[:, :, number * self.block_size : (number + 1) * self.block_size]

    def _check_layers(self, layers: range) -> None:
        if not 0 <= layers.start < layers.stop <= self._pages.shape[1]:
            raise InternalError(f"layers {layers.start} to {layers.stop} do not exist")

    def _slots(self, blocks: list[int], tokens: range) -> torch.Tensor:
        """Slots of a token range, on the pages' device."""
        size = self.block_size
        first = tokens.start // size
        table = torch.tensor(blocks[first : -(-tokens.stop // size)])
        slots = (table[:, None] * size + torch.arange(size)).flatten()
        skipped = first * size
        return put(slots[tokens.start - skipped : tokens.stop - skipped], self._pages.device)


def _token_bytes(model: LanguageModel) -> int:
    return 2 * model.num_layers * model.kv_heads * model.head_dim * model.dtype.itemsize


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Zeros; on the CPU from fresh pages, which cost nothing before they are written.

    Large ones where the system has some: a sequence's blocks lie far from each other, and to find
    the page of each takes as long as to read it.
    """
    num_bytes = math.prod(shape) * dtype.itemsize
    if device.type != "cpu" or not num_bytes:
        return torch.zeros(shape, dtype=dtype, device=device)
    memory = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # advice only
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(shape)


def _host_pages(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Pinned for a CUDA device, which takes long: no step that preempts should have to wait."""
    if device.type == "cuda":
        return torch.empty(shape, dtype=dtype, pin_memory=True)
    return _zeros(shape, dtype, torch.device("cpu"))
