"""What a family adds to transformers' model: the interface that every adapter fills.

Layers and weights stay in transformers. An adapter knows which modules a stage needs, how the
processor is called on one item, what that item becomes in the prompt, where its tokens stand for
the rotary embedding, and what the towers return. It holds no state of requests; one instance may
be used by several threads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from epd.errors import BadRequest, InternalError
from epd.media.decoded import Media, Tensors, VideoInfo
from epd.types import ItemLayout, MediaOptions, Modality

if TYPE_CHECKING:
    import torch

    from epd.models.spec import Checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked of one item beside its media.

    `text_before` is the prompt's text since its last special token, for expansions that merge with
    it. `dtype` is the towers', a torch dtype's name without its module.
    """

    modality: Modality
    content_key: bytes
    text_before: str
    dtype: str
    options: MediaOptions = MediaOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """One item after the processor: all that its tower needs, and what it becomes in the prompt.

    `inputs` are tensors in the names and shapes of the family's Hugging Face processor, floating
    point already in the tower's dtype; these may be on its device, all others are on the CPU.
    `patches` measures the tower's work. An item that came as embeddings has its `rows`,
    [num_rows, width], and no inputs.
    """

    layout: ItemLayout
    inputs: dict[str, torch.Tensor]
    patches: int
    rows: torch.Tensor | None = None


class Adapter(ABC):
    """One family. Models are passed in as `Any`: their classes belong to transformers.

    `batch_invariant`: nothing but the rounding of matrix products makes an item's rows depend on
    what else is in its tower batch. A family for which this is false is encoded item by item.
    """

    batch_invariant: ClassVar[bool]

    pictures_anywhere: ClassVar[bool] = False
    """Whether pictures and frames can be processed elsewhere than by PIL on the CPU."""

    pictures_on: str | None = None
    """The device that torchvision processes them on; None: PIL does, and nothing else."""

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
        """The Hugging Face processor of each modality, for the methods below."""

    def sample_frames(
        self, processors: Mapping[Modality, Any], info: VideoInfo, options: MediaOptions
    ) -> list[int]:
        """Which frames the model's own sampling takes of this video, ascending; repeats allowed.

        The operator's ceiling is applied by the caller. BadRequest for options that make no sense.
        """
        raise InternalError("encode: this family takes no video")

    def sampling_rate(self, processors: Mapping[Modality, Any]) -> int:
        """Samples per second that the model wants of sound."""
        raise InternalError("encode: this family takes no sound")

    @abstractmethod
    def prepare(self, processors: Mapping[Modality, Any], media: Media, asked: Asked) -> Prepared:
        """Call the processor on this one item. BadMedia when it cannot take it. Thread-safe.

        `media` is a Picture, Clip, Sound or Series, as the modality asked for is.
        """

    def from_embeds(self, tensors: Tensors, asked: Asked) -> Prepared:
        """An item whose rows the client computed. BadRequest names a field that is wrong.

        `tensors` has the fields that `FamilySpec.embeds` names; all required ones are there.
        """
        raise BadRequest(f"this model takes no ready-made {asked.modality.value} embeddings")

    @abstractmethod
    def encode(
        self, model: Any, modality: Modality, batch: Sequence[Prepared], device: torch.device
    ) -> list[torch.Tensor]:
        """Rows of each item, [num_rows, width], in order; they may be views of one tensor."""

    # ---- language, where nearly all of transformers' multimodal models have it

    def language_parts(self) -> tuple[str, ...]:
        """Dotted paths of the modules between embeddings and logits."""
        return ("model.language_model", "lm_head")

    def decoder(self, model: Any) -> Any:
        """The stack of layers, from embeddings to the last hidden state."""
        return model.model.language_model

    def head(self, model: Any) -> Any:
        """From hidden states to logits."""
        return model.lm_head
