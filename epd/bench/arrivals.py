"""When requests are sent. Pure."""

from __future__ import annotations

import math
import random


def moments(num: int, rate: float, burstiness: float, seed: str) -> list[float]:
    """Seconds after the start at which `num` requests are due, the first at 0.

    Gaps are gamma distributed with shape `burstiness` and mean 1 / `rate`, as in vLLM's tool: 1 is
    a Poisson process, less comes in bursts, more is more even. An infinite rate is all at once.
    """
    if math.isinf(rate):
        return [0.0] * num
    rng = random.Random(f"arrivals {seed}")
    found = [0.0]
    while len(found) < num:
        found.append(found[-1] + rng.gammavariate(burstiness, 1 / (rate * burstiness)))
    return found[:num]
