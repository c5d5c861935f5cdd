"""What every family is asked in live clusters, one row per family.

A row has a request for each modality that the family takes, under the modality's name, and mixed
ones. Adding a family takes one row: a request under its own name for each modality, more where
there is more to go wrong.
"""

from __future__ import annotations

from typing import Any

from tests.cluster.given import Given, Request, audio, frame_list, image, series, video
from tests.cluster.ready_made import ready_made

Row = dict[str, Request]

LAST = " What is it?"


def asked(*content: str | Given, **more: Any) -> Request:
    return Request((*content, LAST), **more)


IMAGES: Row = {
    "image": asked("Look: ", image(1)),
    "images": asked(image(2), "and", image(3, 100, 84), "then", image(4, 40, 120)),
    "text before images": asked(
        "One ", image(5), "two", image(6), "three:", image(7), "then 4", image(8)
    ),
    "image in an old turn": asked(
        "Are you sure of ",
        image(9),
        before=(("user", ("See ", image(10))), ("assistant", ("A house.",))),
    ),
}
VIDEOS: Row = {
    "video": asked("Watch: ", video(1)),
    "videos": asked(video(2), "and", video(3, num=5, fps=2, size=(48, 80))),
    "frames": asked("Watch ", frame_list(4)),
    "text before videos": asked(
        "One ",
        video(5, num=2),
        "two",
        video(6, num=3),
        "three:",
        video(7, num=2),
        "then 4",
        frame_list(8, 2),
    ),
    "many frames": asked(video(9, num=80, fps=10, size=(32, 32))),
    "fewer frames": asked(
        video(10, num=13, num_frames=6), body={"media_io_kwargs": {"video": {"num_frames": 6}}}
    ),
    "another rate": asked(
        video(11, num=13, wanted_fps=2), body={"media_io_kwargs": {"video": {"fps": 2}}}
    ),
    "another rate, capped": asked(
        video(11, num=13, wanted_fps=3, num_frames=5),
        body={"media_io_kwargs": {"video": {"fps": 3, "num_frames": 5}}},
    ),
    "image and video": asked("Compare ", image(12), " with:", video(13), "and", image(14, 90, 30)),
}
AUDIOS: Row = {
    "audio": asked("Listen: ", audio(1.3, 1)),
    "audios": asked(audio(1.7, 2), "and", audio(0.4, 3)),
    "text before audios": asked(
        "One ",
        audio(0.9, 4),
        "two",
        audio(0.5, 5),
        "three:",
        audio(0.7, 6),
        "then 4",
        audio(0.6, 7),
    ),
    "another sampling rate": asked(audio(1.0, 8, 44_100)),
}
MIXED: Row = {
    "image and audio": asked("See ", image(15), "hear:", audio(1.1, 9)),
    "video with sound": asked("Now ", video(16, sounding=True, listen=True)),
    "sound that nobody wants": asked("Now ", video(16, sounding=True)),
    "silent video asked for its sound": asked("Now:", video(17, listen=True)),
    "sound and silence": asked(
        video(18, num=3, listen=True),
        "and",
        video(19, sounding=True, listen=True),
        "and",
        video(20, num=2, sounding=True, listen=False),
    ),
    "all three": asked(
        "First ", audio(0.6, 10), image(21), "then 2", video(22), "and", audio(1.2, 11)
    ),
    "all three with sound": asked(
        audio(0.8, 12), "x", video(23, sounding=True, listen=True), image(24), "y", video(25, num=4)
    ),
}


def _pixels(*, patch: int) -> Row:
    """Fewer pixels than the checkpoint's own settings take of the same picture."""
    token = (2 * patch) ** 2
    size = {"shortest_edge": 4 * token, "longest_edge": 16 * token}
    content = ("Look: ", image(1, 260, 300), LAST)
    older = {"min_pixels": 4 * token, "max_pixels": 16 * token}
    return {
        "a large image": Request(content),
        "fewer pixels": Request(content, {"mm_processor_kwargs": {"size": size}}, {"size": size}),
        "fewer pixels in older words": Request(
            content, {"mm_processor_kwargs": older}, {"size": size}
        ),
    }


IMAGE_ROWS: Row = {
    "ready-made image": asked("Look: ", ready_made(image(1))),
}
IMAGES_ROWS: Row = {
    "ready-made and other images": asked("1", image(3), ready_made(image(1)), "and", image(2)),
}
VIDEO_ROWS: Row = {
    "ready-made video": asked("Watch ", ready_made(video(1)), "and", ready_made(video(3, num=5))),
}
AUDIO_ROWS: Row = {
    "ready-made audio": asked("Listen 2", ready_made(audio(1.3, 1)), "and", audio(0.6, 2)),
}
ALL_ROWS: Row = {**IMAGE_ROWS, **IMAGES_ROWS, **VIDEO_ROWS, **AUDIO_ROWS}


def _qwen_vl(*, patch: int) -> Row:
    return {**IMAGES, **VIDEOS, **_pixels(patch=patch), **IMAGE_ROWS, **IMAGES_ROWS, **VIDEO_ROWS}


INSIDE: Row = {
    name: {**IMAGES, **AUDIOS, **MIXED}[name]
    for name in ("image", "audios", "video with sound", "all three with sound")
}
"""For a thinker inside the whole model's folder, which says nothing of videos."""

SERIES: Row = {
    "time_series": asked("Look: ", series(100)),
    "several": asked(
        series(7, 3, 1), "and", series(200, 1, 2, "csv"), "then:", series(64, 2, 3, "wav")
    ),
}

ROWS: dict[str, Row] = {
    "qwen2_vl": _qwen_vl(patch=14),
    "qwen2_5_vl": _qwen_vl(patch=14),
    "qwen3_vl": _qwen_vl(patch=16),
    "qwen3_vl_moe": _qwen_vl(patch=16),
    "qwen2_audio": {**AUDIOS, **AUDIO_ROWS},
    "qwen2_5_omni": {**IMAGES, **VIDEOS, **AUDIOS, **MIXED, **ALL_ROWS},
    "qwen3_omni_moe": {**IMAGES, **VIDEOS, **AUDIOS, **MIXED, **ALL_ROWS},
    "llava": {**IMAGES, **IMAGE_ROWS},
    "llava_next": {**IMAGES, **IMAGE_ROWS},
    "llava_onevision": {**IMAGES, **VIDEOS, **IMAGE_ROWS, **VIDEO_ROWS},
    "internvl": {**IMAGES, **VIDEOS, **IMAGE_ROWS, **VIDEO_ROWS},
    "patch_series": SERIES,
    "qwen2_5_omni_inside": INSIDE,
    "qwen3_omni_moe_inside": INSIDE,
}
