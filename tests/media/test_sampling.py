"""Which frames are taken."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from epd.media.sampling import capped, evenly


def test_frames_are_spread_from_the_first_to_the_last() -> None:
    assert evenly(5, 9) == [0, 2, 4, 6, 8]
    assert evenly(2, 100) == [0, 99]
    assert evenly(1, 100) == [0]


def test_a_short_video_gives_all_of_its_frames() -> None:
    assert evenly(32, 3) == [0, 1, 2]
    assert evenly(4, 1) == [0]


def test_what_is_not_too_much_stays_as_it_was_chosen() -> None:
    assert capped([0, 0, 7], 3) == [0, 0, 7]
    assert capped([], 3) == []


@given(
    st.lists(st.integers(0, 10_000), min_size=1, max_size=200).map(sorted),
    st.integers(1, 64),
)
def test_what_is_too_much_is_spread_over_what_was_chosen(indices: list[int], most: int) -> None:
    found = capped(indices, most)
    assert len(found) == min(most, len(indices))
    assert found == sorted(found)
    assert set(found) <= set(indices)
    assert found[0] == indices[0]
    assert most == 1 or found[-1] == indices[-1]
