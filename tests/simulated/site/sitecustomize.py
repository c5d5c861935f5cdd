"""Where Python finds this folder first, every process has a card, and says what is wrong at its end."""

from __future__ import annotations

import atexit
import sys

import tests.simulated.install  # noqa: F401
from tests.simulated.card import card


def _tell() -> None:
    for fault in card.order.faults:
        print("simulated card:", fault, file=sys.stderr)


atexit.register(_tell)
