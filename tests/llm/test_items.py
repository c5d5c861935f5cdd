"""What is in memory arrives as it is: every pixel, sample and value."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from epd.errors import BadRequest
from epd.llm.items import Items, read_items
from epd.media import load_audio, load_image, load_time_series
from epd.models.torchvision_shim import prepare_torchvision
from tests.corpus.making import moving, scene, tone


def parts(kind: str, value: Any) -> list[dict[str, Any]]:
    return read_items({kind: value}, {}).parts


def inline(part: dict[str, Any]) -> list[bytes]:
    """The files of a part, as the server takes them out."""
    address = part[part["type"]]["url"]
    head, _, text = address.partition(",")
    assert head.endswith(";base64")
    return [base64.b64decode(one, validate=True) for one in text.split(",")]


def pixels(data: bytes) -> Any:
    return np.asarray(load_image(data).image)


PICTURE = scene(60, 44)
RGB = np.array(PICTURE)


@pytest.mark.parametrize(
    "given",
    [
        PICTURE,
        RGB,
        torch.from_numpy(RGB),
        torch.from_numpy(RGB).permute(2, 0, 1),
        np.moveaxis(RGB, 2, 0),
    ],
    ids=["PIL", "array", "tensor", "tensor, channels first", "array, channels first"],
)
def test_every_pixel_of_a_picture_arrives(given: Any) -> None:
    [part] = parts("image", given)
    assert part["type"] == "image_url"
    [data] = inline(part)
    assert np.array_equal(pixels(data), RGB)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_pictures_of_every_mode_arrive_as_pillow_shows_them(mode: str) -> None:
    given = PICTURE.convert(mode)
    [data] = inline(parts("image", given)[0])
    assert np.array_equal(pixels(data), np.asarray(given.convert("RGB")))


def test_what_a_file_said_of_its_orientation_is_not_followed_twice() -> None:
    """Who opened it has turned it already, or wants it as it is: the pixels count."""
    picture = PICTURE.copy()
    picture.getexif()[0x0112] = 6
    picture.info["exif"] = picture.getexif().tobytes()
    [data] = inline(parts("image", picture)[0])
    assert np.array_equal(pixels(data), RGB)


def test_several_pictures_are_a_part_each_in_their_order() -> None:
    given = [scene(20, 20, seed) for seed in range(3)]
    found = [pixels(inline(part)[0]) for part in parts("image", given)]
    assert all(
        np.array_equal(ours, np.asarray(one)) for ours, one in zip(found, given, strict=True)
    )


FRAMES = moving(4, 32, 24)


@pytest.mark.parametrize(
    "given",
    [
        FRAMES,
        list(FRAMES),
        [Image.fromarray(frame) for frame in FRAMES],
        torch.from_numpy(FRAMES),
        torch.from_numpy(FRAMES).permute(0, 3, 1, 2),
    ],
    ids=["array", "list of arrays", "list of pictures", "tensor", "tensor, channels first"],
)
def test_frames_are_one_video_whatever_holds_them(given: Any) -> None:
    [part] = parts("video", given)
    assert part["video_url"]["url"].startswith("data:video/jpeg;base64,")
    assert np.array_equal(np.stack([pixels(data) for data in inline(part)]), FRAMES)


@pytest.mark.parametrize("given", [[FRAMES, FRAMES[:2]], np.stack([FRAMES, FRAMES])])
def test_several_videos_are_a_part_each(given: Any) -> None:
    assert [len(inline(part)) for part in parts("video", given)] == [len(one) for one in given]


FACTS = {"fps": 2.0, "frames_indices": [0, 2, 4, 6], "total_num_frames": 8, "duration": 4.0}


def test_what_is_said_of_frames_goes_with_the_request() -> None:
    found = read_items({"video": (FRAMES, FACTS)}, {})
    assert len(found.parts) == 1
    assert found.frames == FACTS


def test_transformers_own_words_for_it_are_understood() -> None:
    prepare_torchvision()
    from transformers.video_utils import VideoMetadata

    said = VideoMetadata(**{**FACTS, "frames_indices": np.array(FACTS["frames_indices"])})
    assert read_items({"video": (FRAMES, said)}, {}).frames == FACTS


def test_one_request_cannot_say_two_things_of_its_videos() -> None:
    with pytest.raises(BadRequest, match="other facts"):
        parts("video", [(FRAMES, {"fps": 2.0}), (FRAMES, {"fps": 4.0})])
    assert len(parts("video", [(FRAMES, {"fps": 2.0}), (FRAMES, {"fps": 2.0})])) == 2


def test_every_sample_of_a_clip_arrives_at_its_rate() -> None:
    samples = tone(0.2, 22_050)
    [part] = parts("audio", (samples, 22_050))
    sound = load_audio(inline(part)[0])
    assert sound.rate == 22_050
    assert np.array_equal(sound.samples, samples)


@pytest.mark.parametrize("channels_first", [False, True])
def test_of_several_channels_it_is_the_mean(channels_first: bool) -> None:
    samples = tone(0.2, channels=2)
    [part] = parts("audio", (samples.T if channels_first else samples, 16_000))
    assert np.array_equal(load_audio(inline(part)[0]).samples, samples.mean(axis=1))


def test_whole_numbers_are_samples_between_minus_one_and_one() -> None:
    samples = np.array([-32768, 0, 16384], np.int16)
    [part] = parts("audio", (samples, 16_000))
    assert load_audio(inline(part)[0]).samples.tolist() == [-1.0, 0.0, 0.5]


def test_several_clips_are_a_part_each() -> None:
    assert len(parts("audio", [(tone(0.1), 16_000), (tone(0.2), 16_000)])) == 2


def test_a_series_arrives_as_it_is() -> None:
    values = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    [part] = parts("time_series", values)
    assert np.array_equal(load_time_series(inline(part)[0]).values, values)


def test_modalities_come_in_the_order_in_which_they_were_given() -> None:
    data = {"audio": (tone(0.1), 16_000), "image": PICTURE}
    found = read_items(data, {})
    assert [part["type"] for part in found.parts] == ["audio_url", "image_url"]


# ---- names


def test_names_go_with_their_items() -> None:
    found = read_items({"image": [PICTURE, PICTURE]}, {"image": ["cat", None]})
    assert [part.get("uuid") for part in found.parts] == ["cat", None]


@pytest.mark.parametrize(
    ("data", "uuids"),
    [({"image": [None]}, {"image": ["cat"]}), ({}, {"image": "cat"}), ({}, {"image": ["cat"]})],
)
def test_a_name_alone_stands_for_what_was_sent_under_it(data: Any, uuids: Any) -> None:
    assert read_items(data, uuids).parts == [{"type": "image_url", "image_url": {}, "uuid": "cat"}]


# ---- refused


@pytest.mark.parametrize(
    ("kind", "given", "reason"),
    [
        ("image", "cat.png", "is a str, no picture"),
        ("image", [PICTURE, 3], r"image\[1\] is a int"),
        ("image", np.zeros((5, 6, 2), np.uint8), r"uint8 \[5, 6, 2\]; pixels are"),
        ("image", [None], "multi_modal_uuids has no name"),
        ("video", "clip.mp4", "is no list of frames"),
        ("video", (FRAMES, {"speed": 2}), "says speed; known are fps"),
        ("audio", tone(0.1), "must be .samples, samples per second"),
        ("audio", ([0.0], 16_000), "has a list where its samples"),
        ("audio", (np.zeros(0, np.float32), 16_000), "sound is floating point"),
        ("audio", (tone(0.1), 16_000.5), "no whole number"),
        ("time_series", "a.csv", "is a str, no array"),
        ("smell", PICTURE, "is none of image, video"),
    ],
)
def test_what_is_no_item_is_refused_by_its_place(kind: str, given: Any, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason) as caught:
        parts(kind, given)
    assert (caught.value.param or "").startswith(f"multi_modal_data.{kind}")


def test_names_that_are_not_as_many_as_the_items_are_refused() -> None:
    with pytest.raises(BadRequest, match="has 1 names for 2 items"):
        read_items({"image": [PICTURE, PICTURE]}, {"image": ["cat"]})


@pytest.mark.parametrize("kind", ["image", "video", "audio"])
def test_nothing_given_is_nothing(kind: str) -> None:
    assert read_items({}, {}) == Items()
    assert parts(kind, []) == []
