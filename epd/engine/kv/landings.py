"""Which KV of a reservation has landed, before its request starts."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from epd.errors import InternalError
from epd.types import RequestKey


@dataclass(slots=True)
class _Landing:
    first: int
    landed: torch.Tensor  # [layers, tokens from `first`], bool


class Landings:
    """By layer and token, what other workers wrote. Tokens that were cached are not theirs."""

    def __init__(self, num_layers: int) -> None:
        self._num_layers = num_layers
        self._reservations: dict[RequestKey, _Landing] = {}

    def expect(self, key: RequestKey, first: int, end: int) -> None:
        """Tokens [first, end) of a reservation may be written."""
        landed = torch.zeros(self._num_layers, end - first, dtype=torch.bool)
        self._reservations[key] = _Landing(first, landed)

    def check_write(self, key: RequestKey, tokens: range) -> None:
        """May these tokens be written?"""
        found = self._reservations.get(key)
        if (
            found is None
            or tokens.start < found.first
            or tokens.stop > found.first + found.landed.shape[1]
        ):
            raise InternalError(f"no room is reserved for KV of tokens {tokens} of {key}")

    def wrote(self, key: RequestKey, tokens: range, layers: range) -> None:
        """KV of a token range x layer range is here."""
        found = self._reservations[key]
        places = slice(tokens.start - found.first, tokens.stop - found.first)
        found.landed[layers.start : layers.stop, places] = True

    def complete(self, key: RequestKey, num_tokens: int) -> bool:
        """Is KV of the first `num_tokens` here, in all layers?"""
        found = self._reservations.get(key)
        return found is not None and bool(found.landed[:, : num_tokens - found.first].all())

    def cached(self, key: RequestKey) -> int:
        """Tokens of the reservation whose KV was there from the start."""
        return self._reservations[key].first

    def forget(self, key: RequestKey) -> None:
        """It started, or is gone; unknown keys are ignored."""
        self._reservations.pop(key, None)

    def keys(self) -> frozenset[RequestKey]:
        """Reservations that have not started."""
        return frozenset(self._reservations)
