"""Sounds for tests, videos that have one, and requests of any kinds of parts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from epd.media.decoded import Clip, Picture, Sound
from tests.models.clips import CLIPS, clip, shown

RATE = 16_000

Part = str | Picture | Clip | Sound


def sound(samples: int) -> Sound:
    """A falling tone with noise; every length another one."""
    rng = np.random.default_rng(samples)
    t = np.arange(samples) / RATE
    wave = 0.3 * np.sin(2 * np.pi * (300 + samples % 700 - 40 * t) * t)
    noise = rng.normal(0, 0.05, samples)
    return Sound(samples=(wave + noise).astype(np.float32), rate=RATE)


def seconds(length: float) -> Sound:
    return sound(int(length * RATE))


SOUNDS: dict[str, Sound] = {
    "two seconds": seconds(2),
    "a second": seconds(1),
    "a little less": sound(RATE - 1),
    "short": seconds(0.3),
    "very short": sound(500),
    "odd": sound(12_345),
    "long": seconds(5.9),
    "silence": Sound(samples=np.zeros(RATE, dtype=np.float32), rate=RATE),
}

LOUD: dict[str, Clip] = {
    "as long": replace(clip(64, 96, 6, total=24), sound=seconds(3)),
    "longer sound": replace(clip(120, 60, 4), sound=seconds(3.3)),
    "shorter sound": replace(clip(64, 64, 8, total=48), sound=seconds(1.2)),
    "fractions of a position": replace(CLIPS["odd"], sound=seconds(1.1)),
    "wider than its sound": replace(clip(500, 40, 2, fps=30.0), sound=seconds(0.2)),
    "far apart": replace(CLIPS["slow"], sound=seconds(5)),
    "one frame": replace(CLIPS["one frame"], sound=seconds(2)),
    "just over a chunk": replace(clip(60, 60, 10, total=50, fps=20.0), sound=seconds(2.3)),
}

_PICTURE = shown(100, 60)

REQUESTS: dict[str, tuple[Part, ...]] = {
    "audio": ("Hear: ", SOUNDS["two seconds"], " what is it?"),
    "two sounds": (SOUNDS["two seconds"], " or 1", seconds(1.4), "?"),
    "image": ("Look: ", _PICTURE, " what is it?"),
    "video": (CLIPS["odd"], " what happens?"),
    "image and audio": ("A ", _PICTURE, " and ", SOUNDS["odd"], ": the same?"),
    "image and video": (_PICTURE, CLIPS["even"], "?"),
    "audio and video": (seconds(1.7), CLIPS["slow"], " why?"),
    "video with sound": ("So ", LOUD["as long"], " what happens?"),
    "sound ends first": (LOUD["shorter sound"], "?"),
    "fractions": (LOUD["fractions of a position"], " when?"),
    "video with sound and image": (_PICTURE, " then ", LOUD["longer sound"], " who?"),
    "video with sound and audio": (SOUNDS["two seconds"], LOUD["as long"], " where?"),
    "two videos with sound": (LOUD["as long"], " or 2:", LOUD["just over a chunk"], "?"),
}
"""What transformers can say in one call: all of its videos have sound, or none has."""

MIXED: dict[str, tuple[Part, ...]] = {
    "with and without sound": (LOUD["as long"], " or ", CLIPS["slow"], "?"),
    "a silent one first": (CLIPS["odd"], LOUD["longer sound"], SOUNDS["two seconds"], "?"),
    "everything": (
        "First ",
        _PICTURE,
        LOUD["far apart"],
        " then",
        seconds(2.5),
        CLIPS["even"],
        " and 2",
        LOUD["just over a chunk"],
        shown(60, 60, 1),
        " at last.",
    ),
}
