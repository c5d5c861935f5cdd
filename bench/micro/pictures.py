"""What Hugging Face's processor and the adapter around it take of a decoded picture."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from bench.micro.figures import Figure, cpu_us
from bench.serving.checkpoints import folder_of
from epd.media.decoded import Picture
from epd.models.adapter import Asked
from epd.models.spec import read_checkpoint
from epd.types import Modality

SIDES = (448, 1344)
PATCH = 14


def figures() -> list[Figure]:
    """Square pictures for Qwen2.5-VL, whose sides it keeps."""
    return [_figure(side) for side in SIDES]


def _figure(side: int) -> Figure:
    adapter = read_checkpoint(folder_of("tiny", "qwen2_5_vl")).adapter()
    processors = adapter.load_processors([Modality.IMAGE])
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    picture = Picture(image=Image.fromarray(pixels))
    asked = Asked(modality=Modality.IMAGE, content_key=b"", text_before="", dtype="float32")
    num = side // PATCH

    def floor() -> torch.Tensor:
        cut = torch.from_numpy(pixels).reshape(num, PATCH, num, PATCH, 3).permute(0, 2, 4, 1, 3)
        twice = cut.unsqueeze(3).expand(-1, -1, -1, 2, -1, -1)
        return twice.reshape(num * num, -1).float().sub_(127.5).mul_(1 / 70)

    return Figure(
        name=f"preprocess, {side}x{side}",
        unit="picture",
        us=cpu_us(lambda: adapter.prepare(processors, picture, asked), times=3),
        floor=cpu_us(floor, times=3),
        floor_is="cut into patches and scaled, once, by torch",
    )
