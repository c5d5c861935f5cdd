"""Where Python finds this folder first, every process has a card, and says what is wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import tests.simulated.install  # noqa: F401 - before torch
from epd.observe import gpus
from tests.simulated.card import card


class Loud(list[str]):
    """Processes may end without a word."""

    def append(self, fault: str) -> None:
        super().append(fault)
        sys.stderr.write(f"simulated card: {fault}\n")


card.order.faults = Loud()
gpus.SIGNS = (Path(__file__),)
