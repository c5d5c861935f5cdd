"""Answers of a decoder process that somebody took over: none of them hurts who reads it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from epd.config.media import VideoLimits
from epd.media.decoders import answers, sealed
from epd.media.decoders.answers import Expected
from epd.media.decoders.link import Malformed

BYTES = Expected("uint8", 1, 100)


@pytest.fixture
def memory() -> Iterator[list[int]]:
    """Descriptors that reading must have closed."""
    opened: list[int] = []
    yield opened
    for fd in opened:
        with pytest.raises(OSError):
            os.fstat(fd)


def holding(data: bytes) -> int:
    return sealed.put([data])


def test_memory_comes_as_an_array(memory: list[int]) -> None:
    memory.append(holding(b"abc"))
    _, (found,) = answers.arrays(({"arrays": [[3]]}, memory), BYTES)
    assert found.tobytes() == b"abc"


def test_nothing_is_an_array_too(memory: list[int]) -> None:
    memory.append(holding(b""))
    _, (found,) = answers.arrays(({"arrays": [[0]]}, memory), BYTES)
    assert len(found) == 0


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"arrays": None},
        {"arrays": []},
        {"arrays": [[3], [3]]},
        {"arrays": [3]},
        {"arrays": [[3, 1]]},
        {"arrays": [[-3]]},
        {"arrays": [[True]]},
        {"arrays": [["3"]]},
        {"arrays": [[2]]},
        {"arrays": [[10**30]]},
    ],
)
def test_shapes_that_do_not_fit_the_memory_are_refused(
    memory: list[int], said: dict[str, Any]
) -> None:
    memory.append(holding(b"abc"))
    with pytest.raises(Malformed):
        answers.arrays((said, memory), BYTES)


def test_more_than_can_be_is_refused(memory: list[int]) -> None:
    memory.append(holding(bytes(101)))
    with pytest.raises(Malformed):
        answers.arrays(({"arrays": [[101]]}, memory), BYTES)


def test_memory_that_can_still_shrink_is_refused(memory: list[int]) -> None:
    """A page that goes away under a reader kills it."""
    fd = sealed.memory()
    os.write(fd, b"abc")
    memory.append(fd)
    with pytest.raises(Malformed, match="memory that can change"):
        answers.arrays(({"arrays": [[3]]}, memory), BYTES)


def test_sealed_memory_cannot_be_written() -> None:
    fd = holding(b"abc")
    with pytest.raises(PermissionError):
        os.write(fd, b"x")
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 1)
    os.close(fd)


FACTS = {"num_frames": 3, "fps": 10.0, "duration_s": 0.3, "width": 4, "height": 2}


def test_facts_of_a_video_are_read() -> None:
    info = answers.info(({"info": {**FACTS, "has_sound": True}}, []), VideoLimits())
    assert (info.num_frames, info.fps, info.has_sound) == (3, 10.0, True)


@pytest.mark.parametrize(
    "lie",
    [
        {"num_frames": 10**12},
        {"num_frames": 0},
        {"num_frames": "3"},
        {"fps": 0},
        {"fps": float("nan")},
        {"fps": None},
        {"duration_s": 10**9},
        {"width": 0},
        {"height": 10**9},
    ],
)
def test_facts_that_cannot_be_are_refused(lie: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        answers.info(({"info": {**FACTS, **lie}}, []), VideoLimits())


def test_frames_are_as_many_as_were_asked_for() -> None:
    answers.check_count(np.zeros((2, 1, 1, 3)), 2)
    for shape in ((3, 1, 1, 3), (2, 1, 1, 4)):
        with pytest.raises(Malformed):
            answers.check_count(np.zeros(shape), 2)
