"""The end: as the fifth stage, from a smaller rate, and verdicts weigh more than other words."""

from __future__ import annotations

from demo.mixed_stage import Mixed, mixed
from demo.seeds import lots

NAME = "polish"
STEPS = 300
ROUND = 150
READING = 0.25
VERDICTS = 5.0
_FIRST = 7.0e-4


def batch(step: int) -> Mixed:
    """The data of one step, the same every time."""
    return mixed(lots(NAME, step))


def rate(step: int) -> float:
    """In a straight line to nearly nothing, round after round."""
    return _FIRST * max(0.01, 1 - step % ROUND / ROUND)
