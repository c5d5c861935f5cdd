"""What encoding an item takes, guessed before anybody has opened it. Pure.

The unit is a pixel through decoder, processor and tower. Only comparisons matter: between items,
and with what an encoder has to do already. What a client said of an item is a guess like any other.
"""

from __future__ import annotations

from epd.cluster.submission import ItemJob
from epd.types import ItemForm, Modality

PICTURE = 1_000_000
"""Pixels of a picture that nothing is known of."""

FRAME = 250_000
"""Pixels of a frame of a video, as samplers scale it."""

FRAMES = 16
"""Frames of a video that nothing is known of."""

SECOND = 100_000
"""A second of sound."""

SECONDS = 10
"""Of a sound that nothing is known of."""

PER_BYTE = {
    Modality.IMAGE: 8,
    Modality.VIDEO: 4,
    Modality.AUDIO: 3,
    Modality.TIME_SERIES: 8,
}
"""What a byte of a file stands for, where nothing better is known."""


def cost(job: ItemJob) -> int:
    """At least 1."""
    if job.form is ItemForm.EMBEDS:
        return 1 + job.num_bytes // 16  # no tower runs
    match job.modality:
        case Modality.IMAGE:
            found = job.pixels or _by_bytes(job) or PICTURE
        case Modality.VIDEO:
            found = _video(job)
        case Modality.AUDIO:
            found = _by_bytes(job) or SECONDS * SECOND
        case Modality.TIME_SERIES:
            found = _by_bytes(job) or SECOND
    return max(1, found)


def _video(job: ItemJob) -> int:
    options = job.options
    if job.form is ItemForm.FRAMES:
        return len(job.pieces) * (job.pixels or FRAME)
    if options.num_frames is not None:
        return options.num_frames * FRAME
    if options.fps is not None and options.duration_s is not None:
        return int(options.fps * options.duration_s) * FRAME
    return _by_bytes(job) or FRAMES * FRAME


def _by_bytes(job: ItemJob) -> int:
    return job.num_bytes * PER_BYTE[job.modality]
