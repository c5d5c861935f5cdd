"""A plugin of pytest: the tests of this run have a card, and so have processes that they start."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import tests.simulated.install  # noqa: F401 - before torch

import pytest  # isort: skip

from tests.simulated.card import card  # isort: skip

HERE = Path(__file__).parent
os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (HERE / "site", HERE.parent.parent)))


@pytest.fixture(autouse=True)
def no_faults() -> Iterator[None]:
    """A test fails where a real card might have done otherwise."""
    yield
    faults = card.told()
    assert not faults, faults[:5]
