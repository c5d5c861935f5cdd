"""What the encoder tells its worker about an item, and what it needs from a family's towers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from epd.encoder.ledger import Known
from epd.errors import EpdError
from epd.media.decoded import Media, Tensors, VideoInfo
from epd.models.adapter import Asked
from epd.types import ItemKey, ItemLayout, MediaOptions, Modality


class PreparedItem(Protocol):
    """One preprocessed item: its layout is known, its rows are not."""

    @property
    def layout(self) -> ItemLayout: ...

    @property
    def inputs(self) -> Mapping[str, torch.Tensor]:
        """What its tower takes, on the CPU."""
        ...

    @property
    def patches(self) -> int:
        """What the item costs in a tower forward."""
        ...


class Towers(Protocol):
    """The towers of one checkpoint, as the encoder uses them."""

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What can be encoded."""
        ...

    @property
    def device(self) -> torch.device:
        """Where they run."""
        ...

    @property
    def dtype_name(self) -> str:
        """Of the towers: a torch dtype's name without its module."""
        ...

    @property
    def sound_in_video(self) -> bool:
        """Whether a video's sound may become part of the item."""
        ...

    @property
    def sampling_rate(self) -> int:
        """Samples per second that the model wants of sound."""
        ...

    def sample_frames(self, info: VideoInfo, options: MediaOptions) -> list[int]:
        """Which frames the model's own sampling takes, ascending; any thread."""
        ...

    def prepare(self, media: Media, asked: Asked) -> PreparedItem:
        """Preprocess one item; any thread. BadMedia for one that the model cannot take."""
        ...

    def from_embeds(self, tensors: Tensors, asked: Asked) -> PreparedItem:
        """An item whose rows the client computed; any thread."""
        ...

    def encode(self, batch: Sequence[Any]) -> list[torch.Tensor]:
        """Rows of each prepared item, [num_rows, width], maybe views; step thread only."""
        ...


@dataclass(frozen=True, slots=True)
class ItemPrepared:
    """From an intake thread: the layout is known, and the towers may run.

    Equal items share one `prepared`; of one whose rows are there already it is Known.
    """

    item: ItemKey
    prepared: PreparedItem | Known[torch.Tensor]


@dataclass(frozen=True, slots=True)
class ItemBroken:
    """From any thread: the item ended here. The error names it by modality and index."""

    item: ItemKey
    error: EpdError


@dataclass(frozen=True, slots=True)
class ItemEncoded:
    """From the step thread: the rows exist and may be pulled."""

    item: ItemKey
    num_rows: int


def named(error: EpdError, modality: Modality, item: ItemKey) -> EpdError:
    """The same error, its message starting with the item as the client counts it, from 0."""
    name = modality.value.replace("_", " ")
    return type(error)(
        f"{name} {item.index}: {error.message}",
        param=error.param,
        code=error.code,
        retry_after_s=error.retry_after_s,
    )
