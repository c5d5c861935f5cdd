"""The soak, for as long as a test may take; `python -m tests.cluster.soak` runs longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.soak import holds, soak

pytestmark = pytest.mark.alone


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_minutes_of_joins_leaves_kills_and_freezes_lose_nothing(path: Path, tmp_path: Path) -> None:
    result = soak(path, tmp_path, seconds=120, seed=3)
    assert holds(result), result
