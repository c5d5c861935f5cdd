"""The encode worker's half of a model: processors and towers, no language weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from epd.attention.staging import put
from epd.attention.towers import VARLEN, Kernel, register_varlen, takes_ends, varlen_kernel
from epd.errors import ConfigError, InternalError
from epd.media.decoded import Media, Tensors, VideoInfo
from epd.models.adapter import Adapter, Asked, Prepared
from epd.models.block_products import compile_products, keeps_blocks
from epd.models.compiled.kernels import load_kernels
from epd.models.compiled.tower import compile_blocks
from epd.models.fused import fuse_towers
from epd.models.leaves import replace_leaves, weight_bytes
from epd.models.partial import load_part
from epd.models.spec import Checkpoint
from epd.models.uploads import uploads_for
from epd.types import MediaOptions, Modality

__all__ = ["Prepared", "Towers", "load_towers"]


class Towers:
    """`prepare` may be called by many threads, `encode` by the step thread alone."""

    def __init__(self, adapter: Adapter, model: Any, processors: dict[Modality, Any]) -> None:
        self._adapter = adapter
        self._model = model
        self._processors = processors
        weights = next(w for w in model.parameters() if w.dtype is not torch.float8_e4m3fn)
        self.device: torch.device = weights.device
        self.dtype: torch.dtype = weights.dtype
        self.dtype_name = str(weights.dtype).removeprefix("torch.")
        self.weight_bytes = weight_bytes(model)
        self.modalities = tuple(processors)
        self.batch_invariant = adapter.batch_invariant
        self._uploads = uploads_for(self.device)

    def sample_frames(self, info: VideoInfo, options: MediaOptions) -> list[int]:
        """Which frames the model's own sampling takes, ascending. BadRequest, BadMedia."""
        return self._adapter.sample_frames(self._processors, info, options)

    @property
    def sound_in_video(self) -> bool:
        """Whether a video's sound may become part of the item."""
        return self._adapter.checkpoint.spec.sound_in_video

    @property
    def sampling_rate(self) -> int:
        """Samples per second that the model wants of sound."""
        return self._adapter.sampling_rate(self._processors)

    def prepare(self, media: Media, asked: Asked) -> Prepared:
        """Run the Hugging Face processor on this one item. BadMedia when it cannot take it.

        What a GPU's tower takes of it is there then.
        """
        self._check(asked.modality)
        if self._uploads is None:
            return self._adapter.prepare(self._processors, media, asked)
        with self._uploads.beside():
            prepared = self._adapter.prepare(self._processors, media, asked)
        return replace(prepared, inputs=self._uploads.send(prepared.inputs))

    def from_embeds(self, tensors: Tensors, asked: Asked) -> Prepared:
        """An item whose rows the client computed. BadRequest names a field that is wrong."""
        self._check(asked.modality)
        return self._adapter.from_embeds(tensors, asked)

    def _check(self, modality: Modality) -> None:
        if modality not in self._processors:
            raise InternalError(f"encode: an item of modality {modality} came to the wrong worker")

    def encode(self, batch: Sequence[Prepared]) -> list[torch.Tensor]:
        """Rows of each item, [num_rows, width] on the device; views, which may share their memory.

        One tower forward per modality in the batch.
        """
        rows: list[torch.Tensor | None] = [None] * len(batch)
        for modality in self.modalities:
            indices = [i for i, item in enumerate(batch) if item.layout.modality is modality]
            indices = [i for i in indices if batch[i].rows is None]
            for group in [indices] if self.batch_invariant else [[i] for i in indices]:
                for i, encoded in zip(group, self._forward(modality, batch, group), strict=True):
                    rows[i] = encoded
        for i, item in enumerate(batch):
            if item.rows is not None:
                rows[i] = put(item.rows, self.device)
        return [_checked(encoded, item) for encoded, item in zip(rows, batch, strict=True)]

    def _forward(
        self, modality: Modality, batch: Sequence[Prepared], group: list[int]
    ) -> list[torch.Tensor]:
        if not group:
            return []
        items = [batch[i] for i in group]
        if self._uploads is not None:  # before the forward, which may fail half way
            self._uploads.used(tensor for item in items for tensor in item.inputs.values())
        with torch.inference_mode():
            rows = self._adapter.encode(self._model, modality, items, self.device)
        return rows


def _checked(rows: torch.Tensor | None, item: Prepared) -> torch.Tensor:
    """The tower must keep what the layout promised."""
    promised = (item.layout.num_rows, item.layout.width)
    if rows is None or tuple(rows.shape) != promised:
        found = None if rows is None else tuple(rows.shape)
        raise InternalError(f"encode: rows of shape {found} where {promised} were promised")
    return rows


def load_towers(
    checkpoint: Checkpoint,
    *,
    modalities: tuple[Modality, ...],
    device: str,
    dtype: str,
    pictures_on: str | None = None,
    cache: Path | None = None,
    fused: bool = True,
) -> Towers:
    """Read the towers of these modalities and nothing else. `device` and `dtype` are resolved.

    `pictures_on`: the device that pictures are processed on with torchvision; with PIL unless set.
    `cache`: where compiled kernels are kept; without it there are none. `fused`: on a CUDA device,
    with joint products and kernels of ours in place of transformers' small modules.
    """
    known = checkpoint.spec.modalities
    if missing := [modality.value for modality in modalities if modality not in known]:
        raise ConfigError(
            f"{checkpoint.spec.name} cannot encode {', '.join(missing)};"
            f" it can encode {', '.join(modality.value for modality in known)}"
        )
    adapter = checkpoint.adapter()
    if pictures_on is not None and not adapter.pictures_anywhere:
        raise ConfigError(
            f"encode.preprocess_on is device: pictures for {checkpoint.spec.name} are processed on"
            " the CPU alone"
        )
    adapter.pictures_on = pictures_on
    parts = adapter.tower_parts(modalities)
    small = keeps_blocks(checkpoint, device, dtype, fused=fused)
    model = load_part(
        checkpoint,
        parts,
        device=device,
        dtype=dtype,
        keep_blocks=small,
        attn_implementation="sdpa",
    )
    if fused and device != "cpu" and dtype != "float32":
        fuse_towers(model)
    if small:
        compile_products(model, getattr(torch, dtype))
    if dtype == "bfloat16":
        # In float32 many rows gain little, and stay equal to Hugging Face's bit for bit.
        kernels = load_kernels(cache) if cache is not None and device == "cpu" else None
        replace_leaves(model, single_rows=False, kernels=kernels)
        compile_blocks(model, kernels)
    kernel = varlen_kernel(torch.device(device), getattr(torch, dtype))
    if kernel is not None:
        attend_varlen(model, kernel)
    return Towers(adapter, model, adapter.load_processors(modalities))


def attend_varlen(model: Any, kernel: Kernel) -> int:
    """Let towers that lay items end to end attend to all in one call; how many layers do."""
    register_varlen(kernel)
    layers = [module for module in model.modules() if takes_ends(module)]
    for layer in layers:
        layer.config._attn_implementation = VARLEN
    return len(layers)
