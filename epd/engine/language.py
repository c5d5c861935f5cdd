"""What the engine needs of a language model; models.LanguageModel has it."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from epd.attention.row_writes import Deepstack


class LanguageModel(Protocol):
    """Layers and weights. Its attention layers call epd.attention.attend with `plan`."""

    @property
    def num_layers(self) -> int:
        """Attention layers, each with its own KV."""

    @property
    def kv_heads(self) -> int:
        """Heads of K and V."""

    @property
    def head_dim(self) -> int:
        """Values per head."""

    @property
    def hidden_size(self) -> int:
        """Values per embedding row."""

    @property
    def deepstack_levels(self) -> int:
        """Layers that add a slice of a row after them; a row is 1 + levels times hidden wide."""

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding table and of the logits."""

    @property
    def dtype(self) -> torch.dtype:
        """Of weights, rows and KV."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """[T] -> [T, hidden]."""

    def forward(
        self,
        embeds: torch.Tensor,
        positions: torch.Tensor,
        plan: Any,
        deepstack: Deepstack | None = None,
    ) -> torch.Tensor:
        """[T, hidden] at [3, T] or [T] -> last hidden [T, hidden]."""

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[N, hidden] -> [N, vocab]."""

    def likeliest(self, hidden: torch.Tensor) -> torch.Tensor | None:
        """[N, hidden] -> [N] ids of the largest logits, first of equals; -1 where not finite.

        None where that is no faster than logits().
        """
