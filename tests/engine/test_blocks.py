"""The block pool: all or nothing, exactly once, shared where it may be, copied where it must."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from epd.engine.kv.blocks import BlockPool
from epd.types import RequestKey

A, B, C = RequestKey("a", 0), RequestKey("b", 0), RequestKey("c", 0)
HASHES = [b"0", b"1", b"2", b"3"]


@pytest.fixture
def pool() -> Iterator[BlockPool]:
    made = BlockPool(num_blocks=4, block_size=16)
    yield made
    made.check()


def publish(pool: BlockPool, key: RequestKey, pages: int) -> list[int]:
    """The request's first pages become known by HASHES; which blocks they are."""
    table = pool.table(key)
    assert table is not None
    for page in range(pages):
        pool.publish(key, -1, page, HASHES[page])
    return table[:pages]


# ---- reservations


def test_reservation_rounds_up_to_blocks(pool: BlockPool) -> None:
    assert pool.reserve(A, 17) == 0
    assert (pool.num_used, pool.num_free) == (2, 2)
    assert pool.holds(A, 32) and not pool.holds(A, 33)


def test_refused_reservation_changes_nothing(pool: BlockPool) -> None:
    pool.reserve(A, 33)
    assert pool.reserve(B, 17) is None
    assert pool.table(B) is None and pool.num_free == 1


def test_release_gives_all_back_once(pool: BlockPool) -> None:
    pool.reserve(A, 64)
    pool.release(A)
    pool.release(A)
    assert pool.num_free == 4 and pool.keys() == frozenset()


def test_fits_is_about_an_idle_pool(pool: BlockPool) -> None:
    pool.reserve(A, 64)
    assert pool.fits(64) and not pool.fits(65)


def test_check_sees_a_lost_block(pool: BlockPool) -> None:
    pool.reserve(A, 16)
    blocks = pool.table(A)
    assert blocks is not None
    lost = blocks.pop()
    with pytest.raises(AssertionError, match="lost or doubled"):
        pool.check()
    blocks.append(lost)


# ---- prefixes


def test_leading_pages_are_found_up_to_the_first_unknown_one(pool: BlockPool) -> None:
    pool.reserve(A, 64)
    publish(pool, A, 1)
    pool.publish(A, -1, 2, HASHES[2])
    pool.release(A)
    assert pool.reserve(B, 48, HASHES[:3]) == 1
    assert pool.reserve(C, 1, [b"unknown", HASHES[0]]) == 0


def test_running_requests_share_a_page(pool: BlockPool) -> None:
    pool.reserve(A, 32)
    (page,) = publish(pool, A, 1)
    assert pool.reserve(B, 40, HASHES[:1]) == 1
    assert (pool.table(B) or [])[:1] == [page] and pool.num_used == 4
    pool.release(A)
    assert pool.num_used == 3 and pool.num_cached == 0
    pool.release(B)
    assert pool.num_used == 0 and pool.num_cached == 1


def test_unpublished_pages_are_not_kept(pool: BlockPool) -> None:
    pool.reserve(A, 64)
    pool.release(A)
    assert pool.num_cached == 0 and pool.reserve(B, 64, HASHES) == 0


def test_cached_pages_are_room_and_go_least_recently_used_first(pool: BlockPool) -> None:
    """A's two pages, then B's one; A is used again; C needs three blocks: B's page goes first."""
    pool.reserve(A, 32)
    publish(pool, A, 2)
    pool.reserve(B, 16)
    pool.publish(B, -1, 0, HASHES[2])
    pool.release(A)
    pool.release(B)
    assert pool.reserve(A, 32, HASHES[:2]) == 2
    pool.release(A)
    assert (pool.num_free, pool.num_cached) == (4, 3)
    assert pool.reserve(C, 48) == 0
    assert pool.num_cached == 1 and pool.num_free == 1
    assert pool.reserve(B, 1, HASHES[2:]) == 0, "what was given out again is not found"
    pool.release(B)


def test_the_beginning_of_a_prefix_outlives_its_end(pool: BlockPool) -> None:
    pool.reserve(A, 64)
    first, *_ = publish(pool, A, 4)
    pool.release(A)
    pool.reserve(B, 48)
    assert pool.reserve(C, 16, HASHES) == 1 and pool.table(C) == [first]


def test_pages_in_use_are_pinned(pool: BlockPool) -> None:
    """The found page counts as room no more once it is held."""
    pool.reserve(A, 16)
    publish(pool, A, 1)
    pool.release(A)
    assert pool.reserve(B, 80, HASHES[:1]) is None and pool.num_cached == 1
    assert pool.reserve(B, 64, HASHES[:1]) == 1
    assert pool.reserve(C, 1) is None


def test_of_two_equal_pages_the_first_is_kept(pool: BlockPool) -> None:
    for key in (A, B):
        pool.reserve(key, 16)
        publish(pool, key, 1)
    kept = pool.table(A)
    pool.release(B)
    assert pool.num_cached == 0
    pool.release(A)
    assert pool.num_cached == 1
    pool.reserve(C, 16, HASHES[:1])
    assert pool.table(C) == kept


def test_disowned_pages_are_found_no_more(pool: BlockPool) -> None:
    pool.reserve(A, 32)
    publish(pool, A, 2)
    pool.disown(A)
    pool.disown(C)
    assert pool.reserve(B, 32, HASHES[:2]) == 0
    pool.release(A)
    assert pool.num_cached == 0


# ---- choices


def test_choices_share_the_prompt_and_copy_the_page_that_they_write(pool: BlockPool) -> None:
    """20 tokens: one full page for all, and the last one to write keeps the original second."""
    pool.reserve(A, 20)
    prompt = list(pool.table(A) or ())
    pool.fork(A, (0, 1, 2), 20)
    assert pool.num_used == 2 and pool.table(A) is None
    copies = pool.extend(A, {0: 21, 1: 21, 2: 21})
    assert copies == [(prompt[1], (pool.table(A, c) or [])[1]) for c in (0, 1)]
    assert pool.table(A, 2) == prompt and pool.num_used == 4
    assert pool.extend(A, {0: 22, 1: 22, 2: 22}) == []


def test_copies_come_out_of_the_reserved_room(pool: BlockPool) -> None:
    pool.reserve(A, 64)
    pool.fork(A, (0, 1), 20)
    assert pool.num_free == 0
    assert len(pool.extend(A, {0: 21, 1: 21}) or ()) == 1
    assert pool.extend(A, {0: 33, 1: 33}) is None
    assert pool.extend(A, {0: 33}) == []


def test_choices_get_room_all_or_none(pool: BlockPool) -> None:
    pool.reserve(A, 32)
    pool.fork(A, (0, 1, 2), 32)
    assert pool.extend(A, {0: 33, 1: 33, 2: 33}) is None
    assert pool.num_free == 2 and pool.table(A, 0) == pool.table(A, 1)
    assert pool.extend(A, {0: 33, 1: 33}) == []


def test_a_choice_that_ends_leaves_its_page_to_the_other(pool: BlockPool) -> None:
    pool.reserve(A, 20)
    pool.fork(A, (0, 1), 20)
    pool.drop(A, 0)
    assert pool.extend(A, {1: 21}) == [] and pool.num_used == 2
    pool.drop(A, 1)
    assert pool.num_used == 0


# ---- preemption


def test_suspended_request_comes_back_with_the_same_sharing(pool: BlockPool) -> None:
    """Two choices of 20 + 1 tokens: three pages, one in common, one more block to go on with."""
    pool.reserve(A, 64)
    pool.fork(A, (0, 1), 20)
    pool.extend(A, {0: 21, 1: 21})
    away = pool.suspend(A, {0: 21, 1: 21})
    assert len(away.blocks) == 3 and away.growth == 1 and pool.num_free == 4
    pool.reserve(B, 16)
    assert not pool.could_resume(away) and pool.could_ever_resume(away)
    pool.release(B)
    assert pool.could_resume(away)
    loads = pool.resume(A, away)
    assert [number for number, _ in loads] == [0, 1, 2]
    first, second = pool.table(A, 0) or [], pool.table(A, 1) or []
    assert first[0] == second[0] and first[1] != second[1] and pool.num_used == 3


def test_resuming_uses_pages_that_are_still_cached(pool: BlockPool) -> None:
    pool.reserve(A, 33)
    publish(pool, A, 2)
    pool.fork(A, (0,), 33)
    away = pool.suspend(A, {0: 33})
    assert pool.num_cached == 2
    pool.reserve(B, 33)
    pool.release(B)
    loads = pool.resume(A, away)
    assert [number for number, _ in loads] == [1, 2], "the first page was still there"
    pool.release(A)
    assert pool.reserve(C, 32, HASHES[:2]) == 2, "the second is known again"


def test_pinning_what_is_found_counts_against_the_room(pool: BlockPool) -> None:
    """Three blocks are free, two of them cached and needed: one is left for one page and one more
    to go on with."""
    pool.reserve(A, 33)
    publish(pool, A, 2)
    pool.fork(A, (0,), 33)
    away = pool.suspend(A, {0: 33})
    pool.reserve(B, 16)
    assert pool.num_free == 3 and pool.num_cached == 2
    assert not pool.could_resume(away)


def test_growth_covers_every_choice(pool: BlockPool) -> None:
    """Four choices at a page's end need a block each; that never fits beside two pages."""
    pool.reserve(A, 32)
    pool.fork(A, range(4), 32)
    away = pool.suspend(A, dict.fromkeys(range(4), 32))
    assert away.growth == 4 and not pool.could_ever_resume(away)
