"""Encoders that are closed when a test ends, and a web site on loopback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.encoder.bench import Bench
from tests.media.conftest import site

__all__ = ["site"]


@pytest.fixture
def benches() -> Iterator[list[Bench]]:
    """Closes what a test opened."""
    opened: list[Bench] = []
    yield opened
    for bench in opened:
        bench.encoder.close()


@pytest.fixture
def bench(benches: list[Bench]) -> Bench:
    """One with the default configuration and a single intake thread, so that order is known."""
    benches.append(Bench(intake_threads=1))
    return benches[0]
