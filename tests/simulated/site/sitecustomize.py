"""Where Python finds this folder first, every process has a card, and ends with its faults."""

from __future__ import annotations

import atexit
import sys
from pathlib import Path

import tests.simulated.install  # noqa: F401 - before torch
from epd.observe import gpus
from tests.simulated.card import card

gpus.SIGNS = (Path(__file__),)


@atexit.register
def _tell() -> None:
    sys.stderr.writelines(f"simulated card: {fault}\n" for fault in card.told())
