"""Videos: the facts of a container before any frame, then exactly the frames that were chosen."""

from __future__ import annotations

import io
from typing import Any

import av
import numpy as np
import pytest

from epd.config import MediaConfig
from epd.config.media import VideoLimits
from epd.errors import BadMedia, BadRequest, TooLarge
from epd.media.backends import load_backend
from epd.media.decoded import Clip, VideoInfo
from epd.media.video import VideoFile, VideoIO, open_video, upright
from epd.types import MediaOptions
from tests.media.clips import encoded_sound, number_of, picture_file, tone, video

PYAV = load_backend("pyav")

FILES: dict[str, dict[str, Any]] = {
    "mp4": {},
    "mov": {"container": "mov"},
    "mkv": {"container": "matroska"},
    "avi": {"container": "avi"},
    "hevc": {"codec": "libx265", "options": {"x265-params": "log-level=none"}},
    "vp8": {"codec": "libvpx", "container": "webm"},
    "vp8 hidden": {
        "codec": "libvpx",
        "container": "webm",
        "options": {"auto-alt-ref": "1", "lag-in-frames": "16"},
    },
    "vp9": {"codec": "libvpx-vp9", "container": "webm"},
    "mpeg4": {"codec": "mpeg4"},
    "mpeg4 avi": {"codec": "mpeg4", "container": "avi"},
    "many keys": {"options": {"g": "5"}},
    "open groups": {"options": {"g": "8", "x264-params": "open-gop=1:bframes=3"}},
}


def opened(data: bytes, **limits: Any) -> VideoFile:
    return open_video(data, VideoLimits(**limits))


def numbers(file: VideoFile, indices: list[int]) -> list[int]:
    frames = file.frames(indices, limits=VideoLimits(), backend=PYAV)
    return [number_of(frame) for frame in frames]


@pytest.mark.parametrize("kind", FILES)
def test_the_chosen_frames_come_whatever_the_format(kind: str) -> None:
    """All, a few far apart, the last one alone, and one of them twice."""
    file = opened(video(**FILES[kind]))
    assert (file.info.num_frames, file.info.fps) == (30, 10.0)
    assert file.info.duration_s == pytest.approx(3.0, abs=0.11)
    assert (file.info.width, file.info.height) == (64, 48)
    for indices in (list(range(30)), [0, 11, 12, 27], [29], [3, 3, 3, 20]):
        assert numbers(file, indices) == indices


def test_frames_are_counted_however_they_are_timed() -> None:
    """Half of them in the first tenth of the time."""
    times = [10 * i for i in range(15)] + [200 + 100 * i for i in range(15)]
    file = opened(video(times=times, container="matroska"))
    assert file.info.num_frames == 30
    assert file.info.fps == pytest.approx(29 / 1.6, rel=0.1)
    assert numbers(file, [0, 14, 15, 29]) == [0, 14, 15, 29]


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_a_rotated_video_is_turned_upright(degrees: int) -> None:
    clip = VideoIO().load_bytes(video(2, rotation=degrees))
    plain = VideoIO().load_bytes(video(2))
    assert np.array_equal(clip.frames, np.rot90(plain.frames, degrees // 90, axes=(1, 2)))
    turned = degrees != 180
    assert (clip.info.width, clip.info.height) == ((48, 64) if turned else (64, 48))


def test_a_video_of_one_frame_is_one_frame() -> None:
    clip = VideoIO().load_bytes(video(1))
    assert (clip.info.num_frames, clip.indices, len(clip.frames)) == (1, (0,), 1)


def test_sound_is_seen_in_the_container() -> None:
    assert opened(video(5, sound_s=0.5)).info.has_sound
    assert not opened(video(5)).info.has_sound


def test_a_file_that_was_cut_gives_what_is_there_or_says_so() -> None:
    whole = video(60, container="matroska")
    file = opened(whole[: len(whole) // 2])
    assert 0 < file.info.num_frames < 60
    try:
        assert numbers(file, [0]) == [0]
        numbers(file, [file.info.num_frames - 1])
    except BadMedia as error:
        assert "cannot be decoded" in error.message or "damaged" in error.message
    with pytest.raises(BadMedia, match="damaged or truncated file"):
        opened(video(5)[:-200])  # the index of an MP4 is at its end


def test_a_count_in_the_header_that_lies_is_not_believed() -> None:
    """MP4 says how many samples there are: 30, then 2000, of which no more than 30 follow."""
    data = bytearray(video(30, options={"bf": "0"}))
    at = data.index(b"stsz") + 12
    assert int.from_bytes(data[at : at + 4], "big") == 30
    data[at : at + 4] = (2000).to_bytes(4, "big")
    try:
        file = opened(bytes(data))
        assert file.info.num_frames <= 30
        assert numbers(file, [0]) == [0]
    except BadMedia as error:
        assert error.status == 422


def test_a_size_in_the_header_that_lies_gives_no_frame_of_another_size() -> None:
    """The container says 64x48, the stream in it 128x96."""
    data = bytearray(video(3, size=(128, 96)))
    at = data.index(b"avc1", data.index(b"stsd")) + 28
    assert data[at : at + 4] == (128).to_bytes(2, "big") + (96).to_bytes(2, "big")
    data[at : at + 4] = (64).to_bytes(2, "big") + (48).to_bytes(2, "big")
    try:
        file = opened(bytes(data))
        frames = list(file.frames([0, 1, 2], limits=VideoLimits(), backend=PYAV))
    except BadMedia as error:
        assert "a frame of 128x96 pixels in a video of 64x48" in error.message
    else:
        assert frames[0].shape[:2] == (file.info.height, file.info.width)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "0 bytes"),
        (b"text" * 100, "not a readable MP4, MOV, WEBM, MKV or AVI file"),
        (picture_file(8, 8, kind="GIF"), "not a readable MP4, MOV, WEBM, MKV or AVI file"),
        (b"#EXTM3U\nfile:///etc/passwd\n", "not a readable MP4, MOV, WEBM, MKV or AVI file"),
        (b"\0\0\0\x20ftypisom" + bytes(500), "damaged or truncated file"),
        (b"\x1aE\xdf\xa3" + bytes(500), "damaged or truncated file"),
    ],
)
def test_what_is_no_video_is_refused_with_the_reason(data: bytes, text: str) -> None:
    with pytest.raises(BadMedia) as caught:
        opened(data)
    assert caught.value.message == text


def test_sound_alone_is_no_video() -> None:
    sound = encoded_sound(tone(0.5, 44_100)[:, None], container="mp4", codec="aac")
    with pytest.raises(BadMedia, match="no video in the file"):
        opened(sound)


def test_a_cover_picture_is_no_video() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        sound: Any = output.add_stream("aac", rate=44_100, layout="mono")
        cover: Any = output.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 16, 16, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), "rgb24")
        output.mux(cover.encode(frame))
        output.mux(cover.encode())
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.sample_rate, silence.pts = 44_100, 0
        output.mux(sound.encode(silence))
        output.mux(sound.encode())
    with pytest.raises(BadMedia, match="no video in the file"):
        opened(file.getvalue())


def test_codecs_that_are_not_on_the_list_are_refused() -> None:
    with pytest.raises(BadMedia, match="video in mjpeg, which is not decoded here"):
        opened(video(3, codec="mjpeg", container="matroska", options={"strict": "unofficial"}))


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"max_pixels": 64 * 48 - 1}, "frames of 64x48 pixels, more than the limit of 3071"),
        ({"max_seconds": 2.9}, "3 s long, more than the limit of 2.9 s"),
    ],
)
def test_limits_are_checked_on_the_header(limits: dict[str, Any], text: str) -> None:
    with pytest.raises(BadMedia) as caught:
        opened(video(30), **limits)
    assert caught.value.message == text
    assert opened(video(30), max_pixels=64 * 48, max_seconds=3.1).info.num_frames == 30


def test_a_file_over_its_bytes_is_too_large() -> None:
    with pytest.raises(TooLarge, match="file larger than 1000 bytes"):
        opened(video(30, size=(128, 96)), max_bytes=1000)


def test_all_frames_together_are_limited_before_the_first_is_decoded() -> None:
    file = opened(video(30))
    limits = VideoLimits(max_decoded_pixels=2 * 64 * 48)
    assert len(list(file.frames([0, 5], limits=limits, backend=PYAV))) == 2
    with pytest.raises(BadMedia, match="3 frames of 64x48 are 9216 pixels, more than the limit"):
        next(file.frames([0, 5, 9], limits=limits, backend=PYAV))


def test_more_frames_than_its_seconds_may_have_are_refused() -> None:
    """A file cannot keep us counting."""
    with pytest.raises(BadMedia, match="more than 241 frames"):
        opened(video(400, rate=400, options={"bf": "0"}), max_seconds=1.0)


def test_upright_facts_follow_the_frames() -> None:
    info = VideoInfo(num_frames=1, fps=1.0, duration_s=1.0, width=3, height=2)
    turned = upright(info, np.zeros((1, 3, 2, 3), np.uint8))
    assert (turned.width, turned.height) == (2, 3)


# ---- VideoIO


@pytest.mark.parametrize(
    ("options", "indices"),
    [
        (MediaOptions(), tuple(range(30))),
        (MediaOptions(num_frames=3), (0, 14, 29)),
        (MediaOptions(fps=1.0), (0, 14, 29)),
        (MediaOptions(fps=5.0, num_frames=2), (0, 29)),
    ],
)
def test_options_choose_frames(options: MediaOptions, indices: tuple[int, ...]) -> None:
    clip = VideoIO(options=options).load_bytes(video(30))
    assert clip.indices == indices
    assert [number_of(frame) for frame in clip.frames] == list(indices)


def test_the_operators_ceiling_holds_whatever_is_asked_for() -> None:
    config = MediaConfig(video=VideoLimits(max_frames=4))
    clip = VideoIO(config, MediaOptions(num_frames=20)).load_bytes(video(30))
    assert len(clip.frames) == 4


def test_frames_as_base64_are_read_back() -> None:
    clip = VideoIO().load_bytes(video(3))
    again = VideoIO().load_base64(VideoIO().encode_base64(clip), "video/jpeg")
    assert again.frames.shape == clip.frames.shape
    assert [number_of(frame) for frame in again.frames] == [0, 1, 2]
    assert again.info.fps == 1.0


def test_a_frame_that_is_no_base64_is_a_bad_request() -> None:
    with pytest.raises(BadRequest):
        VideoIO().load_base64("####,####", "video/jpeg")


def test_clips_are_the_same_however_often_they_are_decoded() -> None:
    data = video(10)
    first, second = (VideoIO().load_bytes(data) for _ in range(2))
    assert isinstance(first, Clip)
    assert np.array_equal(first.frames, second.frames)
