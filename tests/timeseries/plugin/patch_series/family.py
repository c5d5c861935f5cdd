"""What epd needs to know of the family: its adapter and its row, found by the entry point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from epd.errors import BadMedia
from epd.media.decoded import Media, Series
from epd.models.adapter import Adapter, Asked, Prepared
from epd.models.family import FamilySpec
from epd.types import ItemLayout, Modality

if TYPE_CHECKING:
    import torch


class PatchSeries(Adapter):
    """Adapter of PatchSeriesForConditionalGeneration.

    `inputs`: patches [n, 2 * patch_length], values and where there are any, and places [n] int64.
    """

    batch_invariant: ClassVar[bool] = False  # the tower takes one series at a time

    def tower_parts(self, modalities: Sequence[Modality]) -> tuple[str, ...]:
        return ("model.series_tower", "model.series_projector")

    def load_processors(self, modalities: Sequence[Modality]) -> dict[Modality, Any]:
        config = self.checkpoint.config
        return {Modality.TIME_SERIES: (config["patch_length"], config["max_patches"])}

    def prepare(self, processors: Mapping[Modality, Any], media: Media, asked: Asked) -> Prepared:
        import torch

        assert isinstance(media, Series)
        length, most = processors[Modality.TIME_SERIES]
        values = media.values
        if asked.options.truncation:
            values = values[: length * most]
        if len(values) > length * most:
            raise BadMedia(f"{len(values)} steps; this model reads {length * most} at most")
        patches, places = cut(values, length)
        layout = ItemLayout(
            modality=asked.modality,
            token_ids=(int(self.checkpoint.config["series_token_id"]),) * len(patches),
            row_spans=((0, len(patches)),),
            width=int(self.checkpoint.config["text_config"]["hidden_size"]),
            dtype=asked.dtype,
            content_key=asked.content_key,
        )
        inputs = {
            "patches": torch.from_numpy(patches).to(getattr(torch, asked.dtype)),
            "places": torch.from_numpy(places),
        }
        return Prepared(layout=layout, inputs=inputs, patches=len(patches))

    def encode(
        self, model: Any, modality: Modality, batch: Sequence[Prepared], device: torch.device
    ) -> list[torch.Tensor]:
        return [
            model.model.get_series_features(
                item.inputs["patches"].to(device), item.inputs["places"].to(device)
            )
            for item in batch
        ]


def cut(values: NDArray[np.float32], length: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Patches channel by channel, each channel scaled to its own size, and their places in time."""
    if not values.size or not np.isfinite(values).all():
        raise BadMedia("a time series needs finite values")
    steps, channels = values.shape
    num = -(-steps // length)
    scaled = (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-5)
    padded = np.zeros((num * length, channels, 2), dtype=np.float32)
    padded[:steps, :, 0] = scaled
    padded[:steps, :, 1] = 1
    patches = padded.reshape(num, length, channels, 2).transpose(2, 0, 3, 1)
    places = np.tile(np.arange(num), channels)
    return np.ascontiguousarray(patches.reshape(channels * num, 2 * length)), places


def model_class() -> type:
    """Imported where weights are loaded, and nowhere else."""
    from .modeling import PatchSeriesForConditionalGeneration

    return PatchSeriesForConditionalGeneration


FAMILY = FamilySpec(
    name="patch_series",
    architectures=("PatchSeriesForConditionalGeneration",),
    adapter=PatchSeries,
    modalities=(Modality.TIME_SERIES,),
    placeholders={Modality.TIME_SERIES: "<|series_pad|>"},
    rotary="1d",
    towers={Modality.TIME_SERIES: ("series_tower", "series_projector")},
    model_class=model_class,
)
