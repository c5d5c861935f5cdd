"""Media made by code, read back by the libraries that servers use."""

from __future__ import annotations

import base64
import io
import wave
from dataclasses import replace

import av
import numpy as np
import pytest
from PIL import Image

from epd.bench.items import Clip, Item, Picture, Sound, encoded, part

CLIP = Clip(width=64, height=48, frames=5, fps=8.0, seed="1")
SOUND = Sound(seconds=0.25, seed="1")


@pytest.mark.parametrize("content", ["random", "smooth", "blank"])
@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_a_picture_has_its_size_and_format(content: str, kind: str) -> None:
    item = Picture(width=50, height=30, seed="1", format=kind, content=content)
    image = Image.open(io.BytesIO(encoded(item)))
    assert (image.size, image.format) == ((50, 30), kind.upper())
    assert len(np.unique(np.asarray(image).reshape(-1, 3), axis=0)) == (
        1 if content == "blank" else pytest.approx(800, abs=700)
    )


def test_a_video_has_its_frames_and_moves() -> None:
    with av.open(io.BytesIO(encoded(CLIP)), "r") as container:
        (stream,) = container.streams.video
        assert stream.average_rate == 8
        frames = [frame.to_ndarray(format="gray") for frame in container.decode(stream)]
    assert [frame.shape for frame in frames] == [(48, 64)] * 5
    assert np.abs(frames[0].astype(int) - frames[4]).mean() > 5


def test_a_sound_has_its_length() -> None:
    with wave.open(io.BytesIO(encoded(SOUND))) as file:
        assert (file.getnframes(), file.getframerate(), file.getnchannels()) == (4000, 16_000, 1)


@pytest.mark.parametrize("item", [Picture(width=8, height=8, seed="1"), CLIP, SOUND])
def test_the_same_description_gives_the_same_file_and_another_seed_another_one(item: Item) -> None:
    assert encoded(item) == encoded(item)
    assert encoded(replace(item, seed="2")) != encoded(item)


def test_parts_are_those_of_the_chat_api() -> None:
    picture = part(Picture(width=8, height=8, seed="1", format="png"))
    assert picture["type"] == "image_url"
    assert picture["image_url"]["url"].startswith("data:image/png;base64,iVBOR")
    video = part(CLIP)
    assert video["video_url"]["url"].startswith("data:video/mp4;base64,")
    sound = part(SOUND)["input_audio"]
    assert sound["format"] == "wav"
    assert base64.b64decode(sound["data"]).startswith(b"RIFF")
