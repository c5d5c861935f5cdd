"""Counter-based randomness: f(seed, token index), the same on every worker and in every batch.

Pure integer arithmetic on the host, one number per sampled row, so no device, library version or
batch shape can change it.
"""

from __future__ import annotations

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def uniform(seed: int, index: int) -> float:
    """A number in (0, 1) with 52 random bits; never 0 and never 1."""
    mixed = _mix(_mix(seed & _MASK) + (index + 1) * _GOLDEN)
    return ((mixed >> 12) + 0.5) * 2.0**-52


def _mix(value: int) -> int:
    """A bijection of 64-bit numbers in which every input bit moves half the output bits."""
    value = (value + _GOLDEN) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
