"""A plugin of pytest: the tests of this run have a card."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import tests.simulated.install  # noqa: F401 - first of all

import pytest

from tests.simulated.card import card

# Processes that tests start have a card, too.
HERE = Path(__file__).parent
os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (HERE / "site", HERE.parent.parent)))


@pytest.fixture(autouse=True)
def no_faults() -> Iterator[None]:
    """What a real card might have done otherwise."""
    yield
    with card.lock:
        card.wait_for_all()
        card.settle()
        faults, card.order.faults = card.order.faults, []
    assert not faults, faults[:5]
