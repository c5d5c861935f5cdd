"""How items are read: as the request says, else the operator, within the operator's ceilings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from epd.config import MediaConfig
from epd.config.media import ImageLimits, VideoLimits
from epd.errors import ConfigError
from epd.gateway.options import Options
from epd.models.spec import Checkpoint
from epd.types import MediaOptions, Modality
from tests.gateway.asking import EMBEDS, Client, b64, chat, inline, url

pytestmark = pytest.mark.anyio

VIDEO = inline("video", b"v")
AUDIO = inline("audio", b"a")
IMAGE = inline("image", b"i")
FRAMES = url("video", f"data:video/jpeg;base64,{b64(b'x')},{b64(b'y')},{b64(b'z')}")


def video(**said: Any) -> dict[str, Any]:
    return {"media_io_kwargs": {"video": said}}


def processor(**said: Any) -> dict[str, Any]:
    return {"mm_processor_kwargs": said}


@pytest.mark.parametrize(
    ("part", "said", "options"),
    [
        (VIDEO, {}, MediaOptions()),
        (VIDEO, video(num_frames=10, fps=2), MediaOptions(num_frames=10, fps=2.0)),
        (VIDEO, video(num_frames=None), MediaOptions()),
        (VIDEO, processor(fps=0.5), MediaOptions(fps=0.5)),
        (VIDEO, processor(fps=[1.99]), MediaOptions(fps=1.99)),
        (VIDEO, processor(videos_kwargs={"num_frames": 4}), MediaOptions(num_frames=4)),
        (VIDEO, {**video(fps=2), **processor(fps=2.0)}, MediaOptions(fps=2.0)),
        (VIDEO, processor(use_audio_in_video=True), MediaOptions(use_audio_in_video=True)),
        (
            VIDEO,
            processor(use_audio_in_video=True, truncation=True),
            MediaOptions(use_audio_in_video=True, truncation=True),
        ),
        ({**VIDEO, "use_audio_in_video": True}, {}, MediaOptions(use_audio_in_video=True)),
        (
            {**VIDEO, "use_audio_in_video": False},
            processor(use_audio_in_video=True),
            MediaOptions(),
        ),
        (VIDEO, processor(max_pixels=784), MediaOptions(processor='{"max_pixels":784}')),
        (AUDIO, processor(truncation=True), MediaOptions(truncation=True)),
        (AUDIO, processor(max_pixels=784), MediaOptions()),
        (
            IMAGE,
            processor(min_pixels=5, max_pixels=784, fps=1, truncation=True),
            MediaOptions(processor='{"max_pixels":784,"min_pixels":5}'),
        ),
        (
            IMAGE,
            processor(images_kwargs={"max_pixels": 7}, videos_kwargs={"max_pixels": 9}),
            MediaOptions(processor='{"max_pixels":7}'),
        ),
        (
            IMAGE,
            processor(size={"longest_edge": 9, "shortest_edge": 4}, crop_to_patches=True),
            MediaOptions(
                processor='{"crop_to_patches":true,"size":{"longest_edge":9,"shortest_edge":4}}'
            ),
        ),
        (FRAMES, {}, MediaOptions()),
        (FRAMES, video(fps=2), MediaOptions(source_fps=2.0)),
        (FRAMES, processor(fps=[2.5]), MediaOptions(source_fps=2.5)),
        (
            FRAMES,
            video(frames_indices=[0, 30, 60], total_num_frames=61, duration=2, num_frames=2),
            MediaOptions(
                num_frames=2, frames_indices=(0, 30, 60), total_num_frames=61, duration_s=2.0
            ),
        ),
        (FRAMES, processor(use_audio_in_video=True), MediaOptions()),
    ],
)
async def test_what_is_said_becomes_an_items_options(
    client: Client, part: dict[str, Any], said: dict[str, Any], options: MediaOptions
) -> None:
    """A rate chooses frames of a file, and says how far apart those of a list are."""
    (found,) = await client.asked(chat(part, **said))
    assert found.options == options


async def test_each_video_may_have_a_rate_of_its_own(client: Client) -> None:
    """In the order of the chat, files and lists of frames alike."""
    parts = await client.asked(chat(VIDEO, IMAGE, FRAMES, **processor(fps=[1, 2.5])))
    assert (parts[0].options.fps, parts[2].options.source_fps) == (1.0, 2.5)
    error = await client.refused(chat(VIDEO, VIDEO, **processor(fps=[1, 2, 3])))
    assert "3 rates for 2 videos" in error["message"]


async def test_items_know_how_many_of_their_kind_there_are(client: Client) -> None:
    parts = await client.asked(chat(IMAGE, VIDEO, IMAGE))
    assert [part.options.siblings for part in parts] == [2, 1, 2]


async def test_settings_are_canonical(client: Client) -> None:
    """The same settings are the same item, however they are written."""
    said = [{"min_pixels": 5, "max_pixels": 7}, {"max_pixels": 7, "min_pixels": 5}]
    (one,), (other,) = [await client.asked(chat(IMAGE, **processor(**some))) for some in said]
    assert one == other


# ---- the operator's


async def test_a_request_is_heard_before_the_operator(client: Client) -> None:
    """Setting by setting; how frames are chosen is one wish, whichever way it is said."""
    media = MediaConfig(
        io_kwargs={Modality.VIDEO: {"fps": 1}},
        processor_kwargs={"max_pixels": 5, "min_pixels": 3, "use_audio_in_video": True},
    )
    (found,) = await client.asked(chat(VIDEO), media=media)
    assert found.options == MediaOptions(
        fps=1.0, use_audio_in_video=True, processor='{"max_pixels":5,"min_pixels":3}'
    )
    said = processor(num_frames=4, max_pixels=9, use_audio_in_video=False)
    (found,) = await client.asked(chat(VIDEO, **said), media=media)
    assert found.options == MediaOptions(num_frames=4, processor='{"max_pixels":9,"min_pixels":3}')


async def test_more_frames_than_the_operator_allows_become_as_many_as_that(client: Client) -> None:
    """Whoever asks for them, and in whichever way."""
    media = MediaConfig(
        video=VideoLimits(max_frames=8), io_kwargs={Modality.VIDEO: {"num_frames": 99}}
    )
    for said in ({}, video(num_frames=10), processor(num_frames=1_000_000)):
        (found,) = await client.asked(chat(VIDEO, **said), media=media)
        assert found.options.num_frames == 8
    (found,) = await client.asked(chat(VIDEO, **video(num_frames=7)), media=media)
    assert found.options.num_frames == 7


@pytest.mark.parametrize(
    ("part", "said", "most"),
    [
        (IMAGE, {"max_pixels": 1001}, 1000),
        (IMAGE, {"min_pixels": 1001}, 1000),
        (IMAGE, {"images_kwargs": {"min_pixels": 1001}}, 1000),
        (IMAGE, {"size": {"longest_edge": 1001}}, 1000),
        (IMAGE, {"size": {"height": 40, "width": 26}}, 1000),
        (IMAGE, {"max_patches": 65}, 64),
        (VIDEO, {"min_pixels": 501}, 500),
        (VIDEO, {"videos_kwargs": {"size": {"shortest_edge": 501}}}, 500),
        (VIDEO, {"videos_kwargs": {"max_pixels": 501 * 32}}, 500 * 32),
        (VIDEO, {"videos_kwargs": {"size": {"longest_edge": 501 * 32}}}, 500 * 32),
    ],
)
async def test_no_request_lifts_what_the_operator_allows(
    client: Client, part: dict[str, Any], said: dict[str, Any], most: int
) -> None:
    """A small file cannot be had scaled up to a huge one."""
    media = MediaConfig(image=ImageLimits(asked_pixels=1000), video=VideoLimits(asked_pixels=500))
    error = await client.refused(chat(part, **processor(**said)), media=media)
    assert str(most) in error["message"]
    assert error["param"].startswith("mm_processor_kwargs.")


@pytest.mark.parametrize(
    ("media", "said"),
    [
        (MediaConfig(processor_kwargs={"smell": 1}), "smell: unknown setting; known are"),
        (MediaConfig(io_kwargs={Modality.VIDEO: {"fps": 0}}), "video.fps"),
        (MediaConfig(io_kwargs={Modality.IMAGE: {"x": 0}}), "image.x: unknown setting"),
        (MediaConfig(io_kwargs={Modality.VIDEO: {"duration": 2}}), "only a request"),
    ],
)
def test_wishes_of_the_operator_without_sense_end_the_start(
    every: Checkpoint, media: MediaConfig, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        Options(every.spec, media)


# ---- what is refused


@pytest.mark.parametrize(
    ("said", "param", "reason"),
    [
        (processor(smell=1), "mm_processor_kwargs.smell", "unknown setting; known are"),
        (processor(code_revision="x"), "mm_processor_kwargs.code_revision", "max_pixels"),
        (processor(text_kwargs={}), "mm_processor_kwargs.text_kwargs", "unknown setting"),
        (
            processor(audio_kwargs={"max_pixels": 1}),
            "mm_processor_kwargs.audio_kwargs.max_pixels",
            "known are truncation",
        ),
        (
            processor(videos_kwargs={"max_patches": 1}),
            "mm_processor_kwargs.videos_kwargs.max_patches",
            "use_audio_in_video",
        ),
        (processor(images_kwargs=5), "mm_processor_kwargs.images_kwargs", "must be an object"),
        (processor(max_pixels=[5]), "mm_processor_kwargs.max_pixels", "not a value"),
        (processor(max_pixels="5" * 65), "mm_processor_kwargs.max_pixels", "not a value"),
        (processor(max_pixels=-1), "mm_processor_kwargs.max_pixels", "0 at least"),
        (processor(size={}), "mm_processor_kwargs.size", "not a value"),
        (processor(size={"height": {}}), "mm_processor_kwargs.size.height", "a number"),
        (processor(size={str(k): 1 for k in range(5)}), "mm_processor_kwargs.size", "not a value"),
        (processor(fps=0), "mm_processor_kwargs.fps", "more than 0"),
        (processor(fps=-1), "mm_processor_kwargs.fps", "a number"),
        (processor(fps=1e9), "mm_processor_kwargs.fps", "1000 is the most"),
        (processor(fps=[]), "mm_processor_kwargs.fps", "a number or a list"),
        (processor(fps="2"), "mm_processor_kwargs.fps", "a number"),
        (processor(fps=True), "mm_processor_kwargs.fps", "a number"),
        (processor(truncation=1), "mm_processor_kwargs.truncation", "true or false"),
        (processor(use_audio_in_video="yes"), "mm_processor_kwargs.use_audio_in_video", "true"),
        ({**video(fps=2), **processor(fps=3)}, "mm_processor_kwargs.fps", "differs"),
        ({"media_io_kwargs": {"smell": {}}}, "media_io_kwargs.smell", "known are image, video"),
        ({"media_io_kwargs": {"video": 5}}, "media_io_kwargs.video", "must be an object"),
        ({"media_io_kwargs": {"audio": {"rate": 5}}}, "media_io_kwargs.audio.rate", "none can"),
        (video(backend="opencv"), "media_io_kwargs.video.backend", "unknown setting; known are"),
        (video(max_frames=5), "media_io_kwargs.video.max_frames", "unknown setting"),
        (video(num_frames=0), "media_io_kwargs.video.num_frames", "1 at least"),
        (video(num_frames=-1), "media_io_kwargs.video.num_frames", "1 at least"),
        (video(num_frames=2.0), "media_io_kwargs.video.num_frames", "whole number"),
        (video(num_frames=10**9), "media_io_kwargs.video.num_frames", "is the most"),
        (video(num_frames=10**400), "media_io_kwargs.video.num_frames", "num_frames"),
        (video(duration=0), "media_io_kwargs.video.duration", "more than 0"),
        (video(frames_indices=[]), "media_io_kwargs.video.frames_indices", "a list"),
        (video(frames_indices=[0] * 4097), "media_io_kwargs.video.frames_indices", "a list"),
        (processor(fps=[1] * 4097), "mm_processor_kwargs.fps", "a list"),
        (video(frames_indices=[2, 1]), "media_io_kwargs.video.frames_indices", "ascend"),
        (video(frames_indices=[-1]), "media_io_kwargs.video.frames_indices", "0 at least"),
        (video(frames_indices=["1"]), "media_io_kwargs.video.frames_indices", "whole"),
        (video(frames_indices=[0, 1]), "messages[0].content[1]", "it has 3 frames"),
        (video(total_num_frames=2), "messages[0].content[1]", "has 3 at least"),
        (
            video(frames_indices=[0, 1, 9], total_num_frames=9),
            "messages[0].content[1]",
            "has 10 at least",
        ),
    ],
)
async def test_a_setting_that_makes_no_sense_is_named(
    client: Client, said: dict[str, Any], param: str, reason: str
) -> None:
    error = await client.refused(chat(VIDEO, FRAMES, **said))
    assert error["param"] == param
    assert reason in error["message"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("name", ["fps", "max_pixels"])
async def test_only_numbers_are_numbers(client: Client, number: str, name: str) -> None:
    """JSON readers take more than JSON has."""
    text = '{"model": "tiny", "messages": [{"role": "user", "content": "x"}],'
    body = f'{text} "mm_processor_kwargs": {{"{name}": {number}}}}}'
    assert name in (await client.refused_text(body))["message"]


async def test_what_is_said_of_frames_is_refused_where_there_are_none(client: Client) -> None:
    """It would be lost silently."""
    error = await client.refused(chat(VIDEO, **video(total_num_frames=9)))
    assert "no list of frames" in error["message"]
    part = {"video_embeds": b64(b"r"), "video_grid_thw": b64(b"g")}
    embeds = {"type": "video_embeds", "video_embeds": part}
    (found,) = await client.asked(chat(embeds, **video(total_num_frames=9)), media=EMBEDS)
    assert found.options.total_num_frames == 9


async def test_a_list_of_frames_has_no_sound(client: Client) -> None:
    error = await client.refused(chat({**FRAMES, "use_audio_in_video": True}))
    assert "no sound in frames" in error["message"]


async def test_a_model_that_does_not_listen_to_videos_says_so(
    client: Client, every: Checkpoint
) -> None:
    deaf = replace(every, spec=replace(every.spec, sound_in_video=False))
    part = {**VIDEO, "use_audio_in_video": True}
    assert "does not listen" in (await client.refused(chat(part), model=deaf))["message"]
    error = await client.refused(chat(VIDEO, **processor(use_audio_in_video=True)), model=deaf)
    assert "unknown setting; known are" in error["message"]
