"""Counter-based randomness: f(seed, choice, token index), on every worker and in any batch.

Pure 64-bit integer arithmetic, so no device, library version or batch shape can change it. One form
for one number on the host, one for a column of them on a device; both give the same bits.
"""

from __future__ import annotations

import torch

_MASK = (1 << 64) - 1
# Odd numbers whose multiples spread evenly over 64 bits: the steps of the two counters.
_INDEX_STEP = 0x9E3779B97F4A7C15
_CHOICE_STEP = 0xD1B54A32D192ED03
_FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def uniform(seed: int, choice: int, index: int) -> float:
    """A number in (0, 1) with 52 random bits; never 0 and never 1."""
    counter = (index + 1) * _INDEX_STEP + choice * _CHOICE_STEP
    mixed = _mix(_mix(seed & _MASK) + counter)
    return ((mixed >> 12) + 0.5) * 2.0**-52


def uniforms(seeds: torch.Tensor, choices: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """uniform() of int64 tensors of one shape, as float64, on their device."""
    counters = (indices + 1) * signed(_INDEX_STEP) + choices * signed(_CHOICE_STEP)
    mixed = _mix_tensor(_mix_tensor(seeds) + counters)
    return (_shift(mixed, 12).double() + 0.5) * 2.0**-52


def signed(value: int) -> int:
    """The int64 with the same lowest 64 bits."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _mix(value: int) -> int:
    """A bijection of 64-bit numbers in which every input bit moves half the output bits."""
    value = (value + _INDEX_STEP) & _MASK
    value = ((value ^ (value >> 30)) * _FACTORS[0]) & _MASK
    value = ((value ^ (value >> 27)) * _FACTORS[1]) & _MASK
    return value ^ (value >> 31)


def _mix_tensor(value: torch.Tensor) -> torch.Tensor:
    """_mix() in int64, where sums and products wrap around as unsigned ones do."""
    value = value + signed(_INDEX_STEP)
    value = (value ^ _shift(value, 30)) * signed(_FACTORS[0])
    value = (value ^ _shift(value, 27)) * signed(_FACTORS[1])
    return value ^ _shift(value, 31)


def _shift(value: torch.Tensor, bits: int) -> torch.Tensor:
    """To the right with zeros coming in; int64's own shift repeats the sign."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)
