"""Video backends: which one decodes changes nothing."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from numpy.typing import NDArray

from epd.config.media import VideoLimits
from epd.errors import BadMedia, ConfigError
from epd.media.backends import MODULES, check_backend, load_backend
from epd.media.video import VideoFile, open_video
from tests.media.clips import number_of, video

INSTALLED = [name for name, module in MODULES.items() if name != "pyav" and find_spec(module)]
MISSING = sorted(set(MODULES) - {"pyav", *INSTALLED})

FILES = {
    "mp4": video(30),
    "many keys": video(30, options={"g": "5"}),
    "webm": video(30, codec="libvpx-vp9", container="webm"),
    "mkv": video(30, container="matroska"),
    "avi": video(30, codec="mpeg4", container="avi"),
    "rotated": video(30, rotation=90),
    "uneven times": video(30, times=[i * i * 5 + 5 * i for i in range(30)], container="matroska"),
    "odd size": video(5, size=(66, 50)),
    "large": video(4, size=(1280, 720)),
}


def decoded(file: VideoFile, indices: list[int], backend: str) -> NDArray[np.uint8]:
    frames = file.frames(indices, limits=VideoLimits(), backend=load_backend(backend))
    return np.stack([np.array(frame) for frame in frames])


@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize("kind", FILES)
def test_every_backend_gives_the_same_frames(name: str, kind: str) -> None:
    """Of facts there is one source for all. Colours may be rounded differently, no more."""
    file = open_video(FILES[kind], VideoLimits())
    last = file.info.num_frames - 1
    for indices in ([0, last // 3, last], list(range(last + 1)), [last, last]):
        ours, theirs = (decoded(file, indices, backend) for backend in ("pyav", name))
        assert ours.shape == theirs.shape
        assert np.abs(ours.astype(int) - theirs).max() <= 2


@pytest.mark.parametrize("name", ["pyav", *INSTALLED])
def test_a_backend_refuses_frames_that_are_damaged_or_gives_them(name: str) -> None:
    """Never anything but a reason for the client."""
    data = bytearray(FILES["mp4"])
    for at in range(len(data) // 3, len(data) // 2):
        data[at] ^= 0x5A
    try:
        file = open_video(bytes(data), VideoLimits())
        frames = decoded(file, [0, 20], name)
    except BadMedia:
        return
    assert frames.shape == (2, 48, 64, 3)


def test_a_library_that_is_not_installed_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(MODULES, "decord", "no_such_library")
    for check in (check_backend, load_backend):
        with pytest.raises(ConfigError) as caught:
            check("decord")
        assert "media.video.backend=decord" in caught.value.message
        assert "epd[decord]" in caught.value.message


def test_frames_are_numbered_in_the_order_they_are_shown() -> None:
    """Not in the order of decoding, which differs where frames refer to later ones."""
    file = open_video(video(12, options={"bf": "3", "b-adapt": "0"}), VideoLimits())
    frames = decoded(file, list(range(12)), "pyav")
    assert [number_of(frame) for frame in frames] == list(range(12))
    assert list(file.table.times) == sorted(file.table.times)
