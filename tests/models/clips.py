"""Clips for tests, and requests that mix them with pictures and text."""

from __future__ import annotations

import numpy as np

from epd.media.decoded import Clip, Picture, VideoInfo
from tests.models.pictures import picture

Part = str | Picture | Clip


def clip(width: int, height: int, frames: int, *, total: int = 0, fps: float = 8.0) -> Clip:
    """`frames` of a video of `total` (else of as many), evenly spread; every size another one."""
    total = total or frames
    rng = np.random.default_rng(width + 1000 * height + frames)
    y, x = np.mgrid[0:height, 0:width]
    shown = [
        np.stack([np.sin((x + 9 * t) / 7) * np.cos((y - 4 * t) / (5 + c)) for c in range(3)], -1)
        for t in range(frames)
    ]
    noise = rng.integers(-40, 40, (frames, height, width, 3))
    pixels = np.stack(shown) * 80 + 128 + noise
    return Clip(
        frames=pixels.clip(0, 255).astype(np.uint8),
        indices=tuple(int(i) for i in np.linspace(0, total - 1, frames).round()),
        info=VideoInfo(
            num_frames=total, fps=fps, duration_s=total / fps, width=width, height=height
        ),
    )


def shown(width: int, height: int, seed: int = 0) -> Picture:
    """A picture as a part."""
    return Picture(image=picture(width, height, seed))


CLIPS: dict[str, Clip] = {
    "even": clip(64, 96, 4),
    "odd": clip(120, 60, 5, total=31, fps=29.97),
    "one frame": clip(90, 90, 1),
    "one of many": clip(70, 70, 1, total=50),
    "two frames": clip(33, 200, 2, fps=0.5),
    "slow": clip(60, 80, 6, total=240, fps=2.0),
    "few pixels": clip(3, 5, 4),
    "large": clip(400, 300, 4, total=9, fps=25.0),
}

REQUESTS: dict[str, tuple[Part, ...]] = {
    "image": ("Look: ", shown(100, 60), " what is it?"),
    "video": ("Look: ", CLIPS["odd"], " what happens?"),
    "a long video": (CLIPS["slow"], "what?"),
    "image and video": ("A ", shown(60, 60, 1), " and 1", CLIPS["even"], ": the same?"),
    "video and image": (CLIPS["two frames"], " or ", shown(90, 30, 2), "?"),
    "several": (
        "First ",
        CLIPS["slow"],
        shown(200, 100, 3),
        " then",
        CLIPS["odd"],
        CLIPS["one frame"],
        " and ",
        shown(40, 80, 4),
        " at last.",
    ),
}
