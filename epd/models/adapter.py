"""What a family adds to transformers' model: the interface that every adapter fills.

Layers and weights stay in transformers. An adapter knows which modules a stage needs, how the
processor is called on one item, what the towers return, and where tokens stand for the rotary
embedding. It holds no state of requests; one instance may be used by several threads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import torch

from epd.models.spec import Checkpoint
from epd.types import ItemLayout, Modality, Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """One item after the processor: all that its tower needs, and what it becomes in the prompt.

    `inputs` are CPU tensors in the names and shapes of the family's Hugging Face processor,
    floating point already in the tower's dtype. `patches` measures the tower's work.
    """

    layout: ItemLayout
    inputs: dict[str, torch.Tensor]
    patches: int


class Adapter(ABC):
    """One family. Models are passed in as `Any`: their classes belong to transformers.

    `batch_invariant`: nothing but the rounding of matrix products makes an item's rows depend on
    what else is in its tower batch. A family for which this is false is encoded item by item.
    """

    batch_invariant: ClassVar[bool]

    deepstack_levels: int = 0
    """Slices of a row that go into deeper layers: a row is 1 + levels times hidden wide."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint

    # ---- towers

    @abstractmethod
    def tower_parts(self, modalities: Sequence[Modality]) -> tuple[str, ...]:
        """Dotted paths of the modules that encode these modalities."""

    @abstractmethod
    def load_processors(self, modalities: Sequence[Modality]) -> dict[Modality, Any]:
        """The Hugging Face processor of each modality, for `prepare`."""

    @abstractmethod
    def prepare(
        self,
        processor: Any,
        modality: Modality,
        media: Any,
        *,
        content_key: bytes,
        text_before: str,
        dtype: str,
    ) -> Prepared:
        """Call the processor on this one item. BadMedia when it cannot take it. Thread-safe.

        `media` is decoded: a PIL image for an image. `text_before` is the prompt's text since its
        last special token, for expansions that merge with it.
        """

    @abstractmethod
    def encode(
        self, model: Any, modality: Modality, batch: Sequence[Prepared], device: torch.device
    ) -> list[torch.Tensor]:
        """Rows of each item, [num_rows, width], in order; they may be views of one tensor."""

    # ---- language

    @abstractmethod
    def language_parts(self) -> tuple[str, ...]:
        """Dotted paths of the modules between embeddings and logits."""

    @abstractmethod
    def decoder(self, model: Any) -> Any:
        """The stack of layers, from embeddings to the last hidden state."""

    @abstractmethod
    def head(self, model: Any) -> Any:
        """From hidden states to logits."""

    @abstractmethod
    def positions(self, prompt: Prompt) -> tuple[torch.Tensor, int]:
        """Rotary positions ([3, T] or [T], int64, CPU) from layouts alone, and the delta.

        The token at index i >= T of the sequence stands at position i + delta.
        """


def load_adapter(checkpoint: Checkpoint) -> Adapter:
    """Import the family's adapter."""
    module, _, name = checkpoint.spec.adapter.partition(":")
    adapter: Adapter = getattr(import_module(module), name)(checkpoint)
    return adapter
