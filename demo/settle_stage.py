"""The fifth stage: as the fourth, at a rate that falls to nothing, and with more sounds.

An ear that hears few of them at once forgets how to count.
"""

from __future__ import annotations

from demo.mixed_stage import Mixed, mixed
from demo.seeds import lots

NAME = "settle"
STEPS = 4400
READING = 0.5
SOUNDS = 8
_FIRST = 1.0e-3


def batch(step: int) -> Mixed:
    """The data of one step, the same every time."""
    return mixed(lots(NAME, step), num_sounds=SOUNDS)


def rate(step: int) -> float:
    """From the third stage's learning rate in a straight line to nearly nothing."""
    return _FIRST * max(0.01, 1 - step / STEPS)
