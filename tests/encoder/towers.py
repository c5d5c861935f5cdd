"""Towers without weights: rows tell which picture they came from. Obeys the towers' contract."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from epd.errors import BadMedia
from epd.media.decoded import Clip, Media, Picture, Series, Sound, Tensors, VideoInfo
from epd.models.adapter import Asked
from epd.types import ItemLayout, MediaOptions, Modality

WIDTH = 4
ROW_BYTES = WIDTH * 4


@dataclass
class Prepared:
    """One patch per pixel, one row per pixel of the first line."""

    layout: ItemLayout
    patches: int
    shade: float

    @property
    def inputs(self) -> dict[str, torch.Tensor]:
        """One byte per pixel."""
        return {"pixels": torch.empty(self.patches, dtype=torch.uint8)}


class PlainTowers:
    """`batches` are the sizes in patches of each forward; attributes make it misbehave."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.poison: float | None = None  # a batch with this shade fails
        self.memory: int | None = None  # patches that fit the device
        self.lie: bool = False  # rows of another shape than promised
        self.gate: threading.Event | None = None  # prepare waits for it
        self.entered = threading.Event()
        self.prepare_error: Exception | None = None
        self.fail_once = False
        self.most_inside = 0  # of prepare at once
        self.media: list[Media] = []  # what was prepared
        self._inside: set[int] = set()

    modalities: tuple[Modality, ...] = (Modality.IMAGE,)
    device = torch.device("cpu")
    dtype_name = "float32"
    sound_in_video = False
    sampling_rate = 16_000

    def sample_frames(self, info: VideoInfo, options: MediaOptions) -> list[int]:
        """All of them."""
        return list(range(info.num_frames))

    def from_embeds(self, tensors: Tensors, asked: Asked) -> Prepared:
        """One row per value."""
        (rows,) = tensors.values()
        return self._row_per(asked, len(rows), 0.0)

    def prepare(self, media: Media, asked: Asked) -> Prepared:
        """Whatever it is, of a known size; a one-pixel picture is too small for this model."""
        self._inside.add(threading.get_ident())
        self.most_inside = max(self.most_inside, len(self._inside))
        try:
            self.entered.set()
            if self.gate is not None:
                assert self.gate.wait(30)
            if self.prepare_error is not None:
                error = self.prepare_error
                self.prepare_error = None if self.fail_once else error
                raise error
            self.media.append(media)
            return self._prepare(media, asked)
        finally:
            self._inside.discard(threading.get_ident())

    def _prepare(self, media: Media, asked: Asked) -> Prepared:
        match media:
            case Picture(image=image):
                if image.width == 1:
                    raise BadMedia("1x1 pixels are too few")
                shade = image.getpixel((0, 0))
                assert isinstance(shade, tuple)
                return self._row_per(asked, image.width, float(shade[0]), image.height)
            case Clip(frames=frames):
                return self._row_per(asked, len(frames), float(frames[0, 0, 0, 0]))
            case Sound(samples=samples):
                return self._row_per(asked, 1 + len(samples) // 1000, 0.0)
            case Series(values=values):
                return self._row_per(asked, len(values), 0.0)

    def _row_per(self, asked: Asked, count: int, shade: float, height: int = 1) -> Prepared:
        layout = ItemLayout(
            modality=asked.modality,
            token_ids=(9,) * count,
            row_spans=((0, count),),
            width=WIDTH,
            dtype="float32",
            content_key=asked.content_key,
        )
        return Prepared(layout, count * height, shade)

    def encode(self, batch: Sequence[Prepared]) -> list[torch.Tensor]:
        """Views into one tensor, as real towers give them."""
        self.batches.append([prepared.patches for prepared in batch])
        if self.memory is not None and sum(self.batches[-1]) > self.memory:
            raise torch.OutOfMemoryError("no room")
        if any(prepared.shade == self.poison for prepared in batch):
            raise RuntimeError("secret detail")
        counts = [prepared.layout.num_rows - self.lie for prepared in batch]
        shades = torch.tensor([prepared.shade for prepared in batch])
        rows = shades.repeat_interleave(torch.tensor(counts))[:, None].repeat(1, WIDTH)
        return list(torch.split(rows, counts))
