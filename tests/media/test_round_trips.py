"""What the public helpers write, they read again, for every modality."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from epd.config import MediaConfig
from epd.config.media import VideoLimits
from epd.errors import BadMedia
from epd.media import (
    encode_audio_base64,
    encode_time_series_base64,
    encode_video_base64,
    load_audio,
    load_image,
    load_time_series,
    load_video,
)
from epd.media.decoded import Clip, Series, Sound, VideoInfo
from epd.types import MediaOptions


def test_sound_comes_back_and_is_resampled_on_request() -> None:
    samples = (np.sin(np.arange(16_000) / 20) / 2).astype(np.float32)
    url = f"data:audio/wav;base64,{encode_audio_base64(Sound(samples=samples, rate=16_000))}"
    sound = load_audio(url)
    assert sound.rate == 16_000
    np.testing.assert_allclose(sound.samples, samples, atol=1e-4)
    assert load_audio(url, rate=8_000).samples.shape == (8_000,)


def test_a_series_comes_back() -> None:
    values = np.random.default_rng(1).random((5, 2)).astype(np.float32)
    url = f"data:;base64,{encode_time_series_base64(Series(values=values))}"
    np.testing.assert_array_equal(load_time_series(url).values, values)


def test_a_video_comes_back_as_its_frames() -> None:
    """Nearly: they are JPEGs. As many as asked for, within the operator's ceiling."""
    frames = np.stack([np.full((16, 20, 3), 40 * n, np.uint8) for n in range(5)])
    info = VideoInfo(num_frames=5, fps=1.0, duration_s=5.0, width=20, height=16)
    clip = Clip(frames=frames, indices=tuple(range(5)), info=info)
    url = f"data:video/jpeg;base64,{encode_video_base64(clip)}"
    loaded = load_video(url)
    assert loaded.indices == clip.indices
    assert np.abs(loaded.frames.astype(int) - frames).max() < 4
    assert load_video(url, options=MediaOptions(num_frames=2)).indices == (0, 4)
    ceiling = MediaConfig(video=VideoLimits(max_frames=3))
    assert load_video(url, ceiling, MediaOptions(num_frames=5)).indices == (0, 2, 4)


def test_each_helper_refuses_what_is_not_of_its_modality(tmp_path: Path) -> None:
    """With a reason, from a path as from bytes."""
    path = tmp_path / "text"
    path.write_bytes(b"neither seen nor heard")
    for load in (load_image, load_video, load_audio):
        for source in (path, path.read_bytes()):
            with pytest.raises(BadMedia):
                load(source)
