"""A plugin of pytest: the tests of this run have a card, and so have processes that they start.

A simulated one, or a real one where torch is made for those.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulated import build

HERE = Path(__file__).parent
SIMULATED = build.possible()

if SIMULATED:
    import tests.simulated.install  # noqa: F401 - before torch
    from tests.simulated.card import card

    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (HERE / "site", HERE.parent.parent)))


@pytest.fixture(autouse=True)
def no_faults() -> Iterator[None]:
    """A test fails where a real card might have done otherwise."""
    yield
    faults = card.told() if SIMULATED else []
    assert not faults, faults[:5]
