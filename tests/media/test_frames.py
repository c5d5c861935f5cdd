"""Videos that come as single pictures."""

from __future__ import annotations

import numpy as np
import pytest

from epd.config import MediaConfig
from epd.config.media import VideoLimits
from epd.errors import BadMedia, BadRequest, EpdError, TooLarge
from epd.media.decoded import Clip
from epd.media.video import VideoIO
from epd.types import MediaOptions
from tests.media.clips import picture_file


def clip_of(count: int, options: MediaOptions | None = None, **limits: int) -> Clip:
    config = MediaConfig(video=VideoLimits(**limits))
    pieces = [picture_file(8, 6, shade=i, kind=("PNG", "JPEG")[i % 2]) for i in range(count)]
    return VideoIO(config, options).load_frames(pieces)


def test_without_a_word_there_is_a_frame_a_second() -> None:
    clip = clip_of(5)
    assert clip.indices == (0, 1, 2, 3, 4)
    assert (clip.info.num_frames, clip.info.fps, clip.info.duration_s) == (5, 1.0, 5.0)
    assert (clip.info.width, clip.info.height, clip.info.has_sound) == (8, 6, False)
    assert clip.frames.shape == (5, 6, 8, 3)
    assert [int(frame[0, 0, 0]) for frame in clip.frames[::2]] == [0, 2, 4]


@pytest.mark.parametrize(
    ("options", "indices", "facts"),
    [
        (MediaOptions(source_fps=4.0), (0, 1, 2), (3, 4.0, 0.75)),
        (MediaOptions(duration_s=6.0), (0, 1, 2), (3, 0.5, 6.0)),
        (MediaOptions(total_num_frames=61, source_fps=30.0), (0, 30, 60), (61, 30.0, 61 / 30)),
        (MediaOptions(total_num_frames=60, duration_s=2.0), (0, 30, 59), (60, 30.0, 2.0)),
        (MediaOptions(frames_indices=(5, 9, 40)), (5, 9, 40), (41, 1.0, 41.0)),
        (
            MediaOptions(frames_indices=(5, 9, 40), total_num_frames=50, source_fps=25.0),
            (5, 9, 40),
            (50, 25.0, 2.0),
        ),
    ],
)
def test_what_the_sender_says_of_the_source_is_what_it_was(
    options: MediaOptions, indices: tuple[int, ...], facts: tuple[int, float, float]
) -> None:
    clip = clip_of(3, options)
    assert clip.indices == indices
    info = clip.info
    assert (info.num_frames, info.fps, info.duration_s) == pytest.approx(facts)


@pytest.mark.parametrize(
    "options",
    [
        MediaOptions(frames_indices=(1, 2)),
        MediaOptions(frames_indices=(3, 2, 1)),
        MediaOptions(frames_indices=(-1, 2, 3)),
        MediaOptions(frames_indices=(1, 2, 9), total_num_frames=9),
        MediaOptions(total_num_frames=2),
    ],
)
def test_facts_that_cannot_be_are_a_bad_request(options: MediaOptions) -> None:
    with pytest.raises(BadRequest) as caught:
        clip_of(3, options)
    assert caught.value.status == 400


def test_more_frames_than_the_ceiling_are_thinned_with_their_numbers() -> None:
    clip = clip_of(9, MediaOptions(frames_indices=tuple(range(0, 90, 10))), max_frames=3)
    assert clip.indices == (0, 40, 80)
    assert [int(frame[0, 0, 0]) for frame in clip.frames] == [0, 4, 8]
    assert clip_of(9, MediaOptions(num_frames=2)).indices == (0, 8)


@pytest.mark.parametrize(
    ("pieces", "limits", "error", "text"),
    [
        ([], {}, BadMedia, "no frames"),
        ([picture_file(8, 6), b"x"], {}, BadMedia, "frame 1: not a readable"),
        (
            [picture_file(8, 6), picture_file(6, 8)],
            {},
            BadMedia,
            "frame 1: 6x8 pixels, the first has 8x6",
        ),
        ([picture_file(8, 6)], {"max_pixels": 47}, BadMedia, "frame 0: 8x6 pixels, more than"),
        ([picture_file(8, 6)] * 3, {"max_decoded_pixels": 143}, BadMedia, "3 frames of 8x6 are"),
        ([picture_file(8, 6)] * 3, {"max_bytes": 100}, TooLarge, "frames larger than 100 bytes"),
    ],
)
def test_bad_frames_are_named(
    pieces: list[bytes], limits: dict[str, int], error: type[EpdError], text: str
) -> None:
    io = VideoIO(MediaConfig(video=VideoLimits(**limits)))
    with pytest.raises(error) as caught:
        io.load_frames(pieces)
    assert caught.value.message.startswith(text)


def test_frames_are_plain_pixels() -> None:
    assert clip_of(1).frames.dtype == np.uint8
