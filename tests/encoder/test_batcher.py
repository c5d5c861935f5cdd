"""Which items share a forward."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from epd.encoder.batcher import Batch, Batcher, Try
from epd.types import ItemKey


def key(index: int) -> ItemKey:
    """An item."""
    return ItemKey("r", index, 0)


def filled(*patches: int, max_items: int = 3, max_patches: int = 10) -> Batcher[str]:
    """A queue of items that cost so much."""
    batcher: Batcher[str] = Batcher(max_items=max_items, max_patches=max_patches)
    for index, cost in enumerate(patches):
        batcher.add(key(index), cost, f"p{index}")
    return batcher


def drained(batcher: Batcher[str]) -> list[list[int]]:
    """The item indices of all batches."""
    batches = []
    while (batch := batcher.take()) is not None:
        batches.append([queued.item.index for queued in batch.items])
    assert len(batcher) == 0
    return batches


def taken(batcher: Batcher[str]) -> Batch[str]:
    """The next batch, which there must be."""
    batch = batcher.take()
    assert batch is not None
    return batch


def test_an_empty_queue_has_no_batch() -> None:
    """None, not an empty batch."""
    assert filled().take() is None


def test_a_batch_is_full_by_items_or_by_patches() -> None:
    """Whichever comes first."""
    assert drained(filled(1, 1, 1, 1)) == [[0, 1, 2], [3]]
    assert drained(filled(6, 4, 1)) == [[0, 1], [2]]


def test_an_item_over_the_limit_runs_alone() -> None:
    """It is neither refused nor overtaken."""
    assert drained(filled(1, 50, 1, 1)) == [[0], [1], [2, 3]]


def test_a_cheap_item_never_overtakes_an_expensive_one() -> None:
    """First in, first out, so nobody starves."""
    assert drained(filled(6, 6, 1)) == [[0], [1, 2]]


def test_a_failed_batch_is_taken_again_one_by_one_before_anything_new() -> None:
    """And a single item is not tried twice."""
    batcher = filled(1, 1, 1, 1)
    batch = taken(batcher)
    assert batcher.separate(batch)
    assert len(batcher) == 4
    alone = taken(batcher)
    assert alone.attempt is Try.ALONE
    assert not batcher.separate(alone)
    assert drained(batcher) == [[1], [2], [3]]


def test_a_batch_is_halved_once() -> None:
    """A half is not halved again, and a single item has no halves."""
    batcher = filled(1, 1, 1, 1)
    assert batcher.halve(taken(batcher))
    half = taken(batcher)
    assert [queued.item.index for queued in half.items] == [0]
    assert not batcher.halve(half)
    assert drained(batcher) == [[1, 2], [3]]
    single = filled(1)
    assert not single.halve(taken(single))


def test_a_half_that_fails_otherwise_is_still_taken_apart() -> None:
    """Out of memory first, a bad item in one of the halves then."""
    batcher = filled(1, 1, 1, 1, max_items=4)
    assert batcher.halve(taken(batcher))
    assert batcher.separate(taken(batcher))
    assert drained(batcher) == [[0], [1], [2, 3]]


def test_dropped_items_are_in_no_batch() -> None:
    """Wherever they wait; dropping an unknown one changes nothing."""
    batcher = filled(1, 1, 1, 1)
    batcher.drop(key(3))
    assert batcher.separate(taken(batcher))
    batcher.drop(key(1))
    batcher.drop(key(9))
    assert len(batcher) == 2
    assert drained(batcher) == [[0], [2]]


@given(st.lists(st.integers(0, 15)), st.integers(1, 4), st.integers(1, 12))
def test_every_item_is_taken_once_in_order_within_the_limits(
    patches: list[int], max_items: int, max_patches: int
) -> None:
    """For any queue."""
    batches = drained(filled(*patches, max_items=max_items, max_patches=max_patches))
    assert [index for batch in batches for index in batch] == list(range(len(patches)))
    for batch in batches:
        assert len(batch) <= max_items
        assert len(batch) == 1 or sum(patches[index] for index in batch) <= max_patches


def test_cheap_items_may_share_a_forward_before_a_costly_one() -> None:
    """Where the policy says so; a batch is as full as ever."""
    batcher: Batcher[str] = Batcher(max_items=3, max_patches=10, policy="short_first")
    for index, cost in enumerate((9, 1, 2, 8)):
        batcher.add(key(index), cost, f"p{index}")
    assert drained(batcher) == [[1, 2], [3], [0]]


def test_a_single_item_is_taken_where_others_wait_for_the_processor() -> None:
    batcher: Batcher[None] = Batcher(max_items=8, max_patches=100)
    for number in range(3):
        batcher.add(ItemKey("r", number, 0), 10, None)
    first, rest = batcher.take(single=True), batcher.take()
    assert first is not None and [queued.item.index for queued in first.items] == [0]
    assert rest is not None and [queued.item.index for queued in rest.items] == [1, 2]
