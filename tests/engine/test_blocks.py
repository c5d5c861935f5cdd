"""The block pool: all or nothing, exactly once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from epd.engine.kv.blocks import BlockPool
from epd.types import RequestKey

A, B = RequestKey("a", 0), RequestKey("b", 0)


@pytest.fixture
def pool() -> Iterator[BlockPool]:
    made = BlockPool(num_blocks=4, block_size=16)
    yield made
    made.check()


def test_reservation_rounds_up_to_blocks(pool: BlockPool) -> None:
    assert pool.reserve(A, 17)
    assert (pool.num_used, pool.num_free) == (2, 2)
    assert pool.holds(A, 32) and not pool.holds(A, 33)


def test_refused_reservation_changes_nothing(pool: BlockPool) -> None:
    assert pool.reserve(A, 33)
    assert not pool.reserve(B, 17)
    assert pool.table(B) is None and pool.num_free == 1


def test_reservation_grows_and_keeps_its_blocks(pool: BlockPool) -> None:
    assert pool.reserve(A, 16)
    first = list(pool.table(A) or ())
    assert pool.reserve(A, 40) and (pool.table(A) or [])[:1] == first
    assert pool.reserve(A, 1) and pool.num_used == 3


def test_release_gives_all_back_once(pool: BlockPool) -> None:
    assert pool.reserve(A, 64)
    assert pool.release(A) == 4
    assert pool.release(A) == 0
    assert pool.num_free == 4


def test_fits_is_about_an_idle_pool(pool: BlockPool) -> None:
    assert pool.reserve(A, 64)
    assert pool.fits(64) and not pool.fits(65)


def test_check_sees_a_lost_block(pool: BlockPool) -> None:
    assert pool.reserve(A, 16)
    blocks = pool.table(A)
    assert blocks is not None
    lost = blocks.pop()
    with pytest.raises(AssertionError, match="lost or doubled"):
        pool.check()
    blocks.append(lost)
