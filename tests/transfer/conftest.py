"""Both ends of a transfer in one process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from epd.transfer.incoming import Incoming
from epd.transfer.outgoing import Outgoing

ARENA_BYTES = 1 << 16


@pytest.fixture
def outgoing() -> Iterator[Outgoing]:
    made = Outgoing(arena_bytes=ARENA_BYTES)
    yield made
    made.close()


@pytest.fixture
def incoming() -> Iterator[Incoming]:
    made = Incoming()
    yield made
    made.close()
