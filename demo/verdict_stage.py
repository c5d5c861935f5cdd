"""The last stage: what follows from what is said, which is learnt last and is soon forgotten.

As the stage before, at a smaller rate, with more rows of words, and with "yes" and "no" weighing
more. Only the language model learns: towers that went on would unlearn to tell small shapes.
"""

from __future__ import annotations

from demo.mixed_stage import Mixed, mixed
from demo.seeds import lots

NAME = "verdict"
STEPS = 700
VERDICTS = 8.0
WORDS = 64
_FIRST = 5.0e-4


def batch(step: int) -> Mixed:
    """The data of one step, the same every time."""
    return mixed(lots(NAME, step), num_words=WORDS)


def rate(step: int) -> float:
    """Behind a warm-up in a straight line to nearly nothing."""
    return _FIRST * min(1.0, (step + 1) / 50) * max(0.01, 1 - step / STEPS)
