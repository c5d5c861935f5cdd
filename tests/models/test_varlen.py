"""One attention call for all items of a tower batch, and pictures that torchvision processes: how
far that is from what the references do."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from epd.errors import ConfigError
from epd.media.decoded import Picture
from epd.models.spec import Checkpoint
from epd.models.towers import Towers, attend_varlen, load_towers
from epd.types import Modality
from tests.models import qwen_requests
from tests.models.clips import CLIPS
from tests.models.pictures import SIZES, asked, picture, prepare

IMAGE = (Modality.IMAGE,)

MOST, MEAN = 0.031, 0.005
"""Between PIL's and torchvision's pixels, from about -2 to 2: two levels of 256 at most."""


class Kernel:
    """What flash attention does with sequences that stand one after the other. `calls` counts."""

    def __init__(self, *, blind: bool = False) -> None:
        self.calls = 0
        self.longest = 0
        self._blind = blind

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        ends: torch.Tensor,
        longest: int,
        scaling: float,
    ) -> torch.Tensor:
        """Blind: as if all were one sequence."""
        self.calls += 1
        assert ends.dtype == torch.int32 and all(each.is_contiguous() for each in (query, key))
        places = [0, len(query)] if self._blind else ends.tolist()
        sizes = [end - first for first, end in zip(places, places[1:], strict=False)]
        assert self._blind or longest == max(sizes)
        parts = [torch.split(each, sizes) for each in (query, key, value)]
        outs = [
            F.scaled_dot_product_attention(
                q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1), scale=scaling
            )
            for q, k, v in zip(*parts, strict=True)
        ]
        return torch.cat([out.transpose(0, 1) for out in outs])


@pytest.fixture
def own(checkpoint: Checkpoint) -> Towers:
    """To be changed."""
    modalities = checkpoint.spec.modalities
    return load_towers(checkpoint, modalities=modalities, device="cpu", dtype="float32")


def test_items_of_all_sizes_are_one_call_per_layer_and_the_same_rows(
    towers: Towers, own: Towers
) -> None:
    items = [prepare(towers, picture(*size, seed=i)) for i, size in enumerate(SIZES)]
    items += [qwen_requests.prepare(towers, clip) for clip in CLIPS.values()]
    kernel = Kernel()
    layers = attend_varlen(own._model, kernel)
    for rows, expected in zip(own.encode(items), towers.encode(items), strict=True):
        torch.testing.assert_close(rows, expected, rtol=1e-4, atol=1e-4)
    assert kernel.calls == 2 * layers, "a forward for pictures and one for videos"


def test_rows_tell_when_items_see_each_other(towers: Towers, own: Towers) -> None:
    """The control: were ends not looked at, rows would be others."""
    attend_varlen(own._model, Kernel(blind=True))
    items = [prepare(towers, picture(*size, seed=i)) for i, size in enumerate(SIZES[:3])]
    found, expected = own.encode(items), towers.encode(items)
    assert not torch.allclose(found[0], expected[0], rtol=1e-2, atol=1e-2)


def test_pictures_of_torchvision_differ_from_those_of_pil_by_little(
    checkpoint: Checkpoint, towers: Towers, device: torch.device
) -> None:
    """In single precision, over sizes that are scaled up, down and not at all: same layout, pixels
    within MOST of each other and within MEAN on average."""
    elsewhere = load_towers(
        checkpoint, modalities=IMAGE, device="cpu", dtype="float32", pictures_on=device.type
    )
    for number, size in enumerate((*SIZES, (1920, 1080))):
        image = Picture(image=picture(*size, seed=number))
        ours = towers.prepare(image, asked(Modality.IMAGE))
        found = elsewhere.prepare(image, asked(Modality.IMAGE))
        assert found.layout == ours.layout and found.patches == ours.patches
        off = (found.inputs["pixel_values"].cpu() - ours.inputs["pixel_values"]).abs()
        assert float(off.max()) <= MOST and float(off.mean()) <= MEAN, size


def test_a_family_whose_pictures_need_pil_says_so(checkpoint: Checkpoint) -> None:
    adapter = checkpoint.adapter()
    assert adapter.pictures_anywhere
    type(adapter).pictures_anywhere = False
    try:
        with pytest.raises(ConfigError, match=r"encode\.preprocess_on"):
            load_towers(
                checkpoint, modalities=IMAGE, device="cpu", dtype="float32", pictures_on="cpu"
            )
    finally:
        type(adapter).pictures_anywhere = True
