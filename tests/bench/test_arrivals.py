"""When requests are due."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epd.bench.arrivals import moments


@given(
    num=st.integers(0, 50),
    rate=st.floats(0.1, 1000),
    burstiness=st.floats(0.1, 10),
    seed=st.sampled_from(["1", "2"]),
)
def test_the_first_is_due_at_once_and_none_before_the_one_before(
    num: int, rate: float, burstiness: float, seed: str
) -> None:
    found = moments(num, rate, burstiness, seed)
    assert len(found) == num
    assert found[:1] == [0.0][:num]
    assert all(earlier <= later for earlier, later in pairwise(found))
    assert found == moments(num, rate, burstiness, seed)


def test_without_a_rate_all_are_due_at_once() -> None:
    assert moments(3, math.inf, 1.0, "1") == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_gaps_have_the_rates_mean_and_the_burstiness_decides_their_spread(
    burstiness: float,
) -> None:
    """Of a gamma distribution with shape k, variance over mean squared is 1 / k."""
    found = moments(20_000, 50.0, burstiness, "1")
    gaps = [later - earlier for earlier, later in pairwise(found)]
    mean = sum(gaps) / len(gaps)
    spread = sum((gap - mean) ** 2 for gap in gaps) / len(gaps) / mean**2
    assert mean == pytest.approx(1 / 50, rel=0.05)
    assert spread == pytest.approx(1 / burstiness, rel=0.1)
