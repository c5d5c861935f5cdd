"""No tower waits for what it is sent, whatever it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from epd.media.decoded import Clip, Media, Picture
from epd.models.spec import read_checkpoint
from epd.models.towers import load_towers
from epd.types import Modality
from tests.checkpoints import BUILDERS
from tests.models.clips import clip
from tests.models.pictures import asked, picture
from tests.models.sounds import seconds
from tests.sends import Sends

MEDIA: dict[Modality, Media] = {
    Modality.IMAGE: Picture(image=picture(60, 90)),
    Modality.VIDEO: clip(64, 96, 6, total=24),
    Modality.AUDIO: seconds(1.5),
}


OWN = sorted(BUILDERS.keys() - {"patch_series"})  # which is a plugin


@pytest.mark.parametrize("family", OWN)
@pytest.mark.filterwarnings("ignore:__array__ implementation")  # in transformers' processors
def test_nothing_waits_for_what_is_sent_to_a_tower(
    family: str, path_of: Callable[[str], Path]
) -> None:
    """Neither for processed items, nor for what a client computed."""
    checkpoint = read_checkpoint(path_of(family))
    modalities = checkpoint.spec.modalities
    towers = load_towers(checkpoint, modalities=modalities, device="cpu", dtype="float32")
    items = []
    for modality in modalities:
        media = MEDIA[modality]
        items.append(towers.prepare(media, asked(modality)))
        if isinstance(media, Clip) and towers.sound_in_video:
            loud = replace(media, sound=seconds(2))
            items.append(towers.prepare(loud, asked(modality)))
    rows = towers.encode(items)
    items.append(replace(items[0], rows=rows[0]))
    with Sends() as sends:
        towers.encode(items)
    assert sends.not_waiting and not sends.waiting


def test_one_that_waits_is_seen() -> None:
    """The control."""
    with Sends("tests") as sends:
        torch.ones(1).to(torch.device("cpu"))
        torch.ones(1).to(device=torch.device("cpu"), non_blocking=True)
        torch.ones(1).to(torch.float64)
    assert len(sends.waiting) == len(sends.not_waiting) == 1
