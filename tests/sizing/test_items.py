"""What items become, against what the processors of these models make of them."""

from __future__ import annotations

import pytest

from epd.errors import ConfigError
from epd.sizing.items import (
    Clip,
    Cut,
    Patches,
    Picture,
    Sound,
    cut_clip,
    cut_picture,
    cut_sound,
    parse_picture,
    parse_video,
    resized,
)

QWEN2_5 = Patches(patch=14, side=2, pairs=2, least=3136, most=12_845_056)
QWEN3 = Patches(patch=16, side=2, pairs=2, least=65_536, most=16_777_216)


def test_a_1080p_picture() -> None:
    assert resized(Picture(1920, 1080), QWEN2_5) == (1932, 1092)
    assert cut_picture(Picture(1920, 1080), QWEN2_5) == Cut(1, 10_764, 2_691)
    assert resized(Picture(1920, 1080), QWEN3) == (1920, 1088)
    assert cut_picture(Picture(1920, 1080), QWEN3) == Cut(1, 8_160, 2_040)


@pytest.mark.parametrize(
    ("size", "seen"),
    [
        ((1, 1), (56, 56)),
        ((28, 28), (56, 56)),
        ((30, 90), (56, 112)),
        ((640, 480), (644, 476)),
        ((5000, 300), (5012, 308)),
        ((9000, 9000), (3584, 3584)),
    ],
)
def test_sizes_are_those_of_the_processor(size: tuple[int, int], seen: tuple[int, int]) -> None:
    """What transformers 5.23's smart_resize says with the same limits."""
    assert resized(Picture(*size), QWEN2_5) == seen


def test_frames_go_in_pairs() -> None:
    """20 frames of 800 x 448: 10 pairs of 50 x 28 patches."""
    assert cut_clip(Clip(Picture(800, 448), 20), QWEN3) == Cut(10, 1_400, 3_500)
    assert cut_clip(Clip(Picture(800, 448), 19), QWEN3) == Cut(10, 1_400, 3_500)


def test_a_short_sound_costs_a_whole_window_and_makes_few_rows() -> None:
    assert cut_sound(Sound(30)) == Cut(1, 1_500, 750)
    assert cut_sound(Sound(4)) == Cut(1, 1_500, 100)
    assert cut_sound(Sound(31)) == Cut(2, 1_500, 775)


def test_words_for_items() -> None:
    assert parse_picture("1080p*2") == [Picture(1920, 1080)] * 2
    assert parse_picture("640x480") == [Picture(640, 480)]
    assert parse_video("720p:16") == Clip(Picture(1280, 720), 16)


@pytest.mark.parametrize("text", ["", "big", "0x5", "1080p*", "1080p*x", "1080"])
def test_what_is_no_size_is_refused_in_words(text: str) -> None:
    with pytest.raises(ConfigError, match="is no size"):
        parse_picture(text)


@pytest.mark.parametrize("text", ["720p", "720p:0", "720p:x"])
def test_what_is_no_video_is_refused_in_words(text: str) -> None:
    with pytest.raises(ConfigError, match="is no video"):
        parse_video(text)
