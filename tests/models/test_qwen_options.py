"""What a client may choose of frames and pixels, and what comes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from epd.errors import BadMedia, BadRequest
from epd.media.decoded import Clip, Picture, VideoInfo
from epd.models.towers import Towers
from epd.types import MediaOptions
from tests.models.clips import CLIPS, clip, shown
from tests.models.qwen_requests import prepare
from tests.models.test_qwen_vl import QWEN
from tests.models.whole import Whole

pytestmark = pytest.mark.parametrize("family", QWEN, indirect=True, scope="session")


def video(num_frames: int, fps: float = 25.0) -> VideoInfo:
    duration = num_frames / fps
    return VideoInfo(num_frames=num_frames, fps=fps, duration_s=duration, width=64, height=64)


def options(**processor: Any) -> MediaOptions:
    return MediaOptions(processor=json.dumps(processor, sort_keys=True))


# ---- frames


@pytest.mark.parametrize("total", [1, 2, 3, 7, 100, 3000])
def test_silence_means_the_models_own_sampling(total: int, family: str, towers: Towers) -> None:
    """Qwen3-VL: two a second, at least 4 and at most 768; the others: all."""
    found = towers.sample_frames(video(total), MediaOptions())
    if "qwen3" not in family:
        assert found == list(range(total))
        return
    wanted = min(max(total * 2 // 25, 4), 768, total)
    assert found == torch.linspace(0, total - 1, wanted).double().round().int().tolist()


@pytest.mark.parametrize("fps", [0.5, 2.0, 7.3])
def test_frames_per_second_are_sampled_as_hugging_face_does(
    fps: float, whole: Whole, towers: Towers
) -> None:
    from transformers.video_utils import VideoMetadata

    expected = whole.processor.video_processor.sample_frames(
        VideoMetadata(total_num_frames=211, fps=29.97), fps=fps
    )
    found = towers.sample_frames(video(211, 29.97), MediaOptions(fps=fps))
    assert found == [int(index) for index in expected]


def test_a_number_of_frames_is_exact(towers: Towers) -> None:
    for total in (1, 2, 5, 90):
        for wanted in (1, 2, 3, 8, 200):
            found = towers.sample_frames(video(total), MediaOptions(num_frames=wanted))
            assert len(found) == min(wanted, total)


def test_both_mean_frames_per_second(towers: Towers) -> None:
    both = towers.sample_frames(video(250), MediaOptions(fps=1.0, num_frames=500))
    assert both == towers.sample_frames(video(250), MediaOptions(fps=1.0))


@given(total=st.integers(1, 2000), fps=st.floats(1e-3, 1e4), asked=st.floats(1e-3, 1e4))
@settings(max_examples=60)
def test_chosen_frames_are_there_and_ascend(
    total: int, fps: float, asked: float, towers: Towers
) -> None:
    found = towers.sample_frames(video(total, fps), MediaOptions(fps=asked))
    assert found and found == sorted(found)
    assert found[0] >= 0 and found[-1] < total


def test_senseless_numbers_are_the_clients_fault(towers: Towers) -> None:
    for fps in (float("inf"), float("nan"), 0.0, -1.0):
        with pytest.raises(BadRequest, match="fps is"):
            towers.sample_frames(video(100), MediaOptions(fps=fps))
    with pytest.raises(BadRequest, match="num_frames is not positive"):
        towers.sample_frames(video(100), MediaOptions(num_frames=0))


# ---- pixels


CHOSEN = [
    ({"max_pixels": 20 * 32 * 32}, {"longest_edge": 20 * 32 * 32}),
    ({"min_pixels": 40 * 32 * 32}, {"shortest_edge": 40 * 32 * 32}),
    ({"size": {"longest_edge": 9000}}, {"longest_edge": 9000}),
]


@pytest.mark.parametrize(("asked", "edges"), CHOSEN)
@pytest.mark.parametrize("media", [shown(200, 160), CLIPS["large"]], ids=["picture", "clip"])
def test_pixels_are_kept_as_hugging_face_does(
    asked: dict[str, Any],
    edges: dict[str, int],
    media: Picture | Clip,
    whole: Whole,
    towers: Towers,
) -> None:
    is_picture = isinstance(media, Picture)
    own = whole.processor.image_processor if is_picture else whole.processor.video_processor
    size = {edge: getattr(own.size, edge) for edge in ("shortest_edge", "longest_edge")} | edges
    item = prepare(towers, media, options(**asked))
    found = whole.alone(media, size=size)
    assert list(item.layout.token_ids) == found["input_ids"][0].tolist()
    name = "pixel_values" if is_picture else "pixel_values_videos"
    assert torch.equal(item.inputs[name], found[name])
    if "shortest_edge" not in edges:
        assert item.layout.num_rows < prepare(towers, media).layout.num_rows


def test_a_cap_per_frame_keeps_fewer_pixels(family: str, whole: Whole, towers: Towers) -> None:
    item = prepare(towers, CLIPS["large"], options(cap_pixels_per_frame=True))
    found = whole.alone(CLIPS["large"], cap_pixels_per_frame=True)
    assert list(item.layout.token_ids) == found["input_ids"][0].tolist()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"patch_size": 7}, "patch_size is none of"),
        ({"max_pixels": 10**12}, "this model's own is"),
        ({"min_pixels": 10**12}, "more than max_pixels"),
        ({"max_pixels": 1}, "more than max_pixels 1"),
        ({"max_pixels": -1}, "not a positive number"),
        ({"max_pixels": True}, "not a positive number"),
        ({"max_pixels": "many"}, "not a positive number"),
        ({"size": 5}, "size is not an object"),
        ({"size": {"height": 5}}, "size is not an object"),
        ({"size": {"longest_edge": 2.5}}, "not a positive number"),
    ],
)
def test_wrong_settings_are_the_clients_fault(
    asked: dict[str, Any], words: str, towers: Towers
) -> None:
    for media in (shown(60, 60), CLIPS["even"]):
        with pytest.raises(BadRequest, match=words):
            prepare(towers, media, options(**asked))


def test_no_object_and_a_wrong_cap_are_the_clients_fault(towers: Towers) -> None:
    for wrong in ("[]", "{"):
        with pytest.raises(BadRequest, match="mm_processor_kwargs"):
            prepare(towers, shown(60, 60), MediaOptions(processor=wrong))
    with pytest.raises(BadRequest, match="is not true or false"):
        prepare(towers, CLIPS["even"], options(cap_pixels_per_frame=1))
    with pytest.raises(BadRequest, match="is none of"):
        prepare(towers, shown(60, 60), options(cap_pixels_per_frame=True))


# ---- clips that cannot be


def test_a_clip_that_is_too_long_on_one_side_is_the_clients_fault(towers: Towers) -> None:
    with pytest.raises(BadMedia, match="aspect ratio"):
        prepare(towers, clip(10_000, 40, 2))


def test_a_clip_without_frames_or_rate_is_the_clients_fault(towers: Towers) -> None:
    even = CLIPS["even"]
    with pytest.raises(BadMedia, match="it has no frames"):
        prepare(towers, replace(even, frames=even.frames[:0], indices=()))
    for fps in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(BadMedia, match="no frame rate is known"):
            prepare(towers, replace(even, info=replace(even.info, fps=fps)))


def test_frames_too_far_apart_are_the_clients_fault(family: str, towers: Towers) -> None:
    even = CLIPS["even"]
    slow = replace(even, info=replace(even.info, fps=1e-9))
    if family == "qwen2_vl":
        assert prepare(towers, slow).layout == prepare(towers, even).layout
    else:
        with pytest.raises(BadRequest, match="too far apart"):
            prepare(towers, slow)
