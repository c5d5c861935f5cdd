"""Pictures before the towers: on the device instead of by PIL, how much faster and how far off."""

from __future__ import annotations

import random
import statistics
from functools import partial

import torch
from PIL import Image

from bench.gpu.card import repeat
from bench.gpu.jobs import Report
from bench.gpu.rows import Row
from bench.gpu.shape import Shape
from bench.gpu.workloads import StagePlan
from epd.media.decoded import Picture
from epd.models.adapter import Asked, Prepared
from epd.models.spec import Checkpoint
from epd.models.towers import Towers, load_towers
from epd.types import Modality


def noise(size: tuple[int, int], seed: int) -> Picture:
    """A picture of this width and height."""
    pixels = random.Random(seed).randbytes(size[0] * size[1] * 3)
    return Picture(image=Image.frombytes("RGB", size, pixels))


def prepare(towers: Towers, one: Picture, dtype: str = "") -> Prepared:
    """The picture after its processor; values in the towers' dtype unless said."""
    asked = Asked(
        modality=Modality.IMAGE,
        content_key=b"",
        text_before="",
        dtype=dtype or towers.dtype_name,
    )
    return towers.prepare(one, asked)


def compare(
    report: Report, shape: Shape, checkpoint: Checkpoint, by_pil: Towers, plan: StagePlan
) -> None:
    """Rows of the time, and of the largest difference of values from about -2 to 2, in float32."""
    device = str(by_pil.device)
    there = load_towers(
        checkpoint,
        modalities=(Modality.IMAGE,),
        device=device,
        dtype=by_pil.dtype_name,
        pictures_on=device,
    )
    one = noise(plan.picture, 0)
    seconds, pil_s = (
        statistics.median(repeat(partial(prepare, towers, one), device, plan.seconds / 2))
        for towers in (there, by_pil)
    )
    size = "x".join(map(str, plan.picture))
    report.row(
        Row(
            section="preprocess",
            model=shape.name,
            what=f"{size} on the device; floor: PIL",
            value=seconds * 1e3,
            unit="ms",
            floor=pil_s * 1e3,
            share=seconds / pil_s,
        )
    )
    off = (_values(there, one) - _values(by_pil, one)).abs()
    found, expected = (
        by_pil.encode([prepare(towers, one)])[0].double() for towers in (there, by_pil)
    )
    apart = float((found - expected).norm() / expected.norm())
    report.row(
        Row(
            section="preprocess",
            model=shape.name,
            what="largest difference to PIL's values",
            value=float(off.max()),
            unit="",
            detail={"mean": float(off.mean()), "rows_apart": apart},
        )
    )


def _values(towers: Towers, one: Picture) -> torch.Tensor:
    return prepare(towers, one, "float32").inputs["pixel_values"].cpu()
