"""A sound that is heard in windows."""

from __future__ import annotations

import numpy as np
import pytest

from epd.encoder.reading import windowed
from epd.errors import BadMedia
from epd.media.decoded import Sound
from epd.types import PAST_THE_END, MediaOptions

SOUND = Sound(samples=np.arange(2500, dtype=np.float32), rate=100)


def heard(begin_s: float, most_s: float | None) -> list[float]:
    found = windowed(SOUND, MediaOptions(begin_s=begin_s, most_s=most_s)).samples
    return [float(found[0]), float(found[-1])]


def test_windows_one_behind_the_other_are_the_whole_sound() -> None:
    assert [heard(10.0 * number, 10.0) for number in range(3)] == [
        [0.0, 999.0],
        [1000.0, 1999.0],
        [2000.0, 2499.0],
    ]
    assert heard(0.0, None) == [0.0, 2499.0]


@pytest.mark.parametrize("begin_s", [24.95, 25.0, 30.0])
def test_a_window_behind_the_end_says_so(begin_s: float) -> None:
    """So does one with less than a word in it."""
    with pytest.raises(BadMedia) as caught:
        heard(begin_s, 10.0)
    assert caught.value.code == PAST_THE_END
