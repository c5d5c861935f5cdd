"""LLaVA-OneVision: what a picture becomes depends on how many its conversation has."""

from __future__ import annotations

import pytest
from PIL import Image

from epd.errors import BadMedia
from epd.media.decoded import Picture, VideoInfo
from epd.models.adapter import Prepared
from epd.types import MediaOptions, Modality
from tests.checkpoints import build
from tests.models import halves
from tests.models.halves import Halves
from tests.models.llava_chats import picture_part


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Halves:
    return halves.load(build("llava_onevision", tmp_path_factory.mktemp("checkpoints") / "tiny"))


def prepare(both: Halves, picture: Picture, siblings: int) -> Prepared:
    return both.prepare(Modality.IMAGE, picture, options=MediaOptions(siblings=siblings))


def test_a_picture_alone_has_tiles_and_one_among_several_has_not(both: Halves) -> None:
    picture = picture_part(120, 90)
    alone, among = prepare(both, picture, 1), prepare(both, picture, 2)
    assert len(alone.inputs["pixel_values"]) > 1 and alone.layout.num_rows > 26
    assert len(among.inputs["pixel_values"]) == 1 and among.layout.num_rows == 26
    assert prepare(both, picture, 7).layout == among.layout


def test_padding_to_a_square_is_bounded(both: Halves) -> None:
    """Within the limit of pixels and of the aspect ratio a square could still have gigabytes."""
    long = Picture(image=Image.new("RGB", (20_000, 200)))
    with pytest.raises(BadMedia, match="20000 pixels long; among several, 10000 are read"):
        prepare(both, long, 2)
    assert prepare(both, long, 1).layout.num_rows > 26


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (MediaOptions(), list(range(10))),
        (MediaOptions(num_frames=3), [0, 3, 6]),
        (MediaOptions(fps=1.0), [0, 5]),
        (MediaOptions(fps=100.0, num_frames=2), list(range(10))),  # capped by the caller
    ],
)
def test_frames_are_chosen_by_the_models_own_rule(
    options: MediaOptions, expected: list[int], both: Halves
) -> None:
    info = VideoInfo(num_frames=10, fps=5.0, duration_s=2.0, width=64, height=48)
    assert both.towers.sample_frames(info, options) == expected
