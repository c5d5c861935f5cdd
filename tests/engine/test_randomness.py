"""The uniform numbers behind sampling: fixed for ever, and uniform."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from epd.engine.randomness import uniform, uniforms

PINNED = [0.7012121095215252, 0.3871241409757856, 0.9435642308648545, 0.44645983675149814]


def test_numbers_never_change() -> None:
    """A stream that continues on a worker of another version must continue the same way."""
    assert [uniform(0, 0, 0), uniform(0, 0, 1), uniform(1, 0, 0), uniform(1, 2, 3)] == PINNED
    assert uniform(-1, 0, 3) == uniform((1 << 64) - 1, 0, 3)


COUNTERS = st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**20), st.integers(0, 2**31))


@given(st.lists(COUNTERS, min_size=1, max_size=20))
def test_the_tensor_form_gives_the_same_bits(counters: list[tuple[int, int, int]]) -> None:
    columns = torch.tensor(counters).T
    assert uniforms(*columns).tolist() == [uniform(*counter) for counter in counters]


@pytest.mark.parametrize(
    "numbers",
    [
        [uniform(0, 0, index) for index in range(20_000)],
        [uniform(seed, 0, 0) for seed in range(20_000)],
        [uniform(seed, 0, seed) for seed in range(20_000)],
        [uniform(seed << 40, 0, 5) for seed in range(20_000)],
        [uniform(3, choice, 0) for choice in range(20_000)],
        [uniform(3, number % 16, number // 16) for number in range(20_000)],
    ],
    ids=["by index", "by seed", "diagonal", "high bits", "by choice", "choices side by side"],
)
def test_numbers_are_uniform_and_independent(numbers: list[float]) -> None:
    """Kolmogorov-Smirnov at 0.1 %, and no correlation with the next number."""
    count = len(numbers)
    ordered = sorted(numbers)
    assert ordered[0] > 0.0 and ordered[-1] < 1.0 and len(set(numbers)) == count
    gap = max(
        max(number - rank / count, (rank + 1) / count - number)
        for rank, number in enumerate(ordered)
    )
    assert gap < 1.95 / math.sqrt(count)
    products = sum((a - 0.5) * (b - 0.5) for a, b in pairwise(numbers)) / count * 12
    assert abs(products) < 4 / math.sqrt(count)
