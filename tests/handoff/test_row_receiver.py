"""The prefill side of E->P: pulls within the quota, every row once, lost items found again."""

from __future__ import annotations

import pytest

from epd.handoff import Instruction, RowReceiver, Send, first_rows
from epd.types import ItemKey, RequestKey
from epd.wire.messages import ItemMoved, ReleaseRows
from tests.handoff.samples import AGAIN, OTHER, R, item, lost, part, prompt, pull, sent


def receiver(quota: int, *, part_bytes: int = 100) -> RowReceiver:
    """Rows of one byte each unless a test says otherwise."""
    return RowReceiver(quota_bytes=quota, part_bytes=part_bytes)


def admitted(
    rows: RowReceiver,
    *num_rows: int,
    request: RequestKey = R,
    row_bytes: int = 1,
    first_rows: tuple[int, ...] = (),
) -> list[Instruction]:
    """A request with items of so many rows, all of them needed unless `first_rows` says other."""
    sizes = [row_bytes] * len(num_rows)
    needed = first_rows or (0,) * len(num_rows)
    return rows.admitted("gateway", request, prompt(*num_rows), sizes, needed)


def land(rows: RowReceiver, first: int, num: int, *, index: int = 0) -> list[Instruction]:
    """A part that is accepted and merged."""
    arrived = part(first, num, index=index)
    assert rows.landed("encode", arrived)
    return rows.settled(arrived)


def release(key: ItemKey) -> ReleaseRows:
    """By the first attempt."""
    return ReleaseRows(request=R, item=key)


def moved(attempt: int, encoder: str = "encode-2", *, index: int = 0) -> ItemMoved:
    """Item 0 is at another encoder under a new key."""
    return ItemMoved(request=R, item=item(index, attempt), encoder=encoder)


# ---- the quota


def test_rows_are_pulled_in_prompt_order_within_the_quota() -> None:
    """The first item whole, of the second what still fits."""
    rows = receiver(5)
    assert sent(admitted(rows, 3, 4), "encode") == [pull(0, 3), pull(0, 2, index=1)]
    assert rows.held_bytes == 5


def test_the_oldest_request_gets_its_rows_first() -> None:
    """A younger one takes what is left over, and waits when nothing is."""
    rows = receiver(3)
    admitted(rows, 4)
    assert admitted(rows, 2, request=OTHER) == []
    assert sent(rows.consumed(R, 2), "encode") == [pull(3, 1), pull(0, 1, request=OTHER)]


def test_an_item_larger_than_the_quota_streams_through_it() -> None:
    """10 rows through room for 4: what is consumed makes room, nothing is held beyond the quota."""
    rows = receiver(4)
    pulls = sent(admitted(rows, 10), "encode")
    while sum(p.num_rows for p in pulls) < 10:
        assert rows.held_bytes <= 4
        last = pulls[-1]
        assert land(rows, last.first_row, last.num_rows) == []
        pulls += sent(rows.consumed(R, last.first_row + last.num_rows), "encode")
    assert [(p.first_row, p.num_rows) for p in pulls] == [(0, 4), (4, 4), (8, 2)]


def test_a_row_larger_than_the_quota_still_comes_one_at_a_time() -> None:
    """Otherwise its request could never move."""
    rows = receiver(4)
    assert sent(admitted(rows, 2, row_bytes=10), "encode") == [pull(0, 1)]
    assert rows.held_bytes == 10
    assert sent(rows.consumed(R, 1), "encode") == [pull(1, 1)]


def test_a_large_row_waits_until_the_quota_is_free() -> None:
    """Small rows of an older request are held: the large one comes after them, and only then."""
    rows = receiver(4)
    admitted(rows, 3)
    assert admitted(rows, 2, request=OTHER, row_bytes=10) == []
    assert rows.consumed(R, 2) == []
    assert sent(rows.consumed(R, 3), "encode") == [pull(0, 1, request=OTHER)]


def test_one_pull_asks_for_one_part_at_most() -> None:
    """So that an encoder is never asked for gigabytes in one breath."""
    rows = receiver(100, part_bytes=4)
    assert sent(admitted(rows, 10), "encode") == [pull(0, 4), pull(4, 4), pull(8, 2)]


def test_consuming_again_frees_nothing_twice() -> None:
    """A repeated, or late, count is behind what is known."""
    rows = receiver(2)
    admitted(rows, 6)
    assert sent(rows.consumed(R, 2), "encode") == [pull(2, 2)]
    assert rows.consumed(R, 2) == []
    assert rows.consumed(R, 1) == []
    assert rows.consumed(OTHER, 1) == []
    assert rows.held_bytes == 2


def test_an_ended_request_gives_its_quota_to_the_next() -> None:
    """And releases what it pulled and has not got."""
    rows = receiver(4)
    admitted(rows, 6)
    admitted(rows, 2, request=OTHER)
    assert rows.ended(R) == [
        Send("encode", release(item())),
        Send("encode", pull(0, 2, request=OTHER)),
    ]
    assert rows.num_requests == 1
    assert rows.ended(R) == []


def test_an_ended_request_releases_nothing_it_never_pulled() -> None:
    """Items beyond the quota were never asked for; the complete ones are released already."""
    rows = receiver(4)
    admitted(rows, 2, 2, 2)
    land(rows, 0, 2)
    assert sent(rows.ended(R), "encode") == [release(item(1))]


# ---- what lands


def test_a_complete_item_is_released_at_its_encoder() -> None:
    """Once, when its last part has been merged; parts come in any order."""
    rows = receiver(10)
    admitted(rows, 4)
    assert land(rows, 2, 2) == []
    assert land(rows, 0, 2) == [Send("encode", release(item()))]


def test_a_repeated_part_is_dropped() -> None:
    """Its bytes must not be merged twice."""
    rows = receiver(10)
    admitted(rows, 4)
    land(rows, 0, 2)
    assert not rows.landed("encode", part(0, 2))


@pytest.mark.parametrize(("first", "num"), [(1, 2), (0, 3), (2, 1), (0, 4)])
def test_a_part_that_overlaps_what_has_landed_is_dropped(first: int, num: int) -> None:
    """Row 2 is here already."""
    rows = receiver(10)
    admitted(rows, 4)
    land(rows, 2, 1)
    assert rows.landed("encode", part(first, num)) is (first + num <= 2)


@pytest.mark.parametrize(("first", "num"), [(-1, 2), (0, 0), (1, -1), (2, 1), (0, 3)])
def test_rows_that_were_not_asked_for_are_dropped(first: int, num: int) -> None:
    """The quota allowed 2 rows so far."""
    rows = receiver(2)
    admitted(rows, 4)
    assert not rows.landed("encode", part(first, num))


def test_rows_of_strangers_are_dropped() -> None:
    """Another worker, another request, another item: none of them was asked."""
    rows = receiver(10)
    admitted(rows, 4)
    assert not rows.landed("stranger", part(0, 2))
    assert not rows.landed("encode", part(0, 2, request=OTHER))
    assert not rows.landed("encode", part(0, 2, index=1))


def test_a_part_after_the_end_is_dropped() -> None:
    """It was under way when the request ended."""
    rows = receiver(10)
    admitted(rows, 4)
    rows.ended(R)
    assert not rows.landed("encode", part(0, 2))
    assert rows.settled(part(0, 2)) == []


def test_a_part_of_a_stale_request_attempt_is_dropped() -> None:
    """The same item was pulled by the attempt before; its rows are not counted for this one."""
    rows = receiver(10)
    admitted(rows, 4, request=AGAIN)
    assert not rows.landed("encode", part(0, 2, request=R))


# ---- lost and found


def test_a_lost_item_is_reported_to_the_gateway_once() -> None:
    """However many pulls of it are answered with RowsLost."""
    rows = receiver(10, part_bytes=2)
    admitted(rows, 4)
    assert rows.lost("encode", lost("evicted")) == [Send("gateway", lost("evicted"))]
    assert rows.lost("encode", lost("evicted")) == []


def test_nobody_else_can_report_it() -> None:
    """Nor is a complete, or an unknown, item ever lost."""
    rows = receiver(10)
    admitted(rows, 2)
    assert rows.lost("stranger", lost("evicted")) == []
    assert rows.lost("encode", lost("evicted", request=OTHER)) == []
    land(rows, 0, 2)
    assert rows.lost("encode", lost("evicted")) == []


def test_a_moved_item_is_pulled_where_it_is_now() -> None:
    """Only what had not landed; then the rest as the quota allows."""
    rows = receiver(3)
    admitted(rows, 5)
    land(rows, 1, 1)
    rows.lost("encode", lost("evicted"))
    assert sent(rows.moved(moved(2)), "encode-2") == [
        pull(0, 1, attempt=2),
        pull(2, 1, attempt=2),
    ]
    assert sent(rows.consumed(R, 1), "encode-2") == [pull(3, 1, attempt=2)]


def test_a_lost_item_is_not_pulled_before_it_is_found() -> None:
    """Its credit is kept for it meanwhile."""
    rows = receiver(2)
    admitted(rows, 6)
    rows.lost("encode", lost("evicted"))
    assert rows.consumed(R, 2) == []
    assert rows.held_bytes == 2
    assert sent(rows.moved(moved(2)), "encode-2") == [pull(0, 4, attempt=2)]


def test_rows_of_a_stale_item_attempt_are_dropped() -> None:
    """The old encoder was only slow; its rows come after the item moved."""
    rows = receiver(10)
    admitted(rows, 4)
    rows.lost("encode", lost("evicted"))
    rows.moved(moved(2))
    assert not rows.landed("encode", part(0, 2))
    assert not rows.landed("encode", part(0, 2, attempt=2))
    assert rows.landed("encode-2", part(0, 2, attempt=2))


def test_rows_that_land_before_the_item_moves_are_kept() -> None:
    """Parts that left before the encoder lost the item are as good as any."""
    rows = receiver(10)
    admitted(rows, 4)
    rows.lost("encode", lost("evicted"))
    land(rows, 0, 3)
    assert sent(rows.moved(moved(2)), "encode-2") == [pull(3, 1, attempt=2)]


def test_an_item_that_completed_does_not_move() -> None:
    """Its last rows came after all."""
    rows = receiver(10)
    admitted(rows, 2)
    rows.lost("encode", lost("evicted"))
    land(rows, 0, 2)
    assert rows.moved(moved(2)) == []


def test_a_dead_encoder_loses_what_it_still_owes() -> None:
    """Complete items are safe, items elsewhere too."""
    rows = receiver(10)
    admitted(rows, 2, 3, 2)
    land(rows, 0, 2)
    rows.lost("encode", lost("evicted", index=2))
    rows.moved(moved(2, index=2))
    assert rows.peer_lost("encode") == [Send("gateway", lost("encode died", index=1))]


def test_a_dead_encoder_is_not_asked_to_release() -> None:
    """The request ends while its item is lost."""
    rows = receiver(10)
    admitted(rows, 2)
    rows.peer_lost("encode")
    assert rows.ended(R) == []


def test_a_repeated_move_changes_nothing() -> None:
    """Neither does one that is late, of another item or of another request."""
    rows = receiver(10)
    admitted(rows, 4)
    rows.lost("encode", lost("evicted"))
    rows.moved(moved(3))
    for stale in (moved(3), moved(2), moved(4, index=1)):
        assert rows.moved(stale) == []
    assert rows.moved(ItemMoved(request=OTHER, item=item(0, 4), encoder="x")) == []
    assert rows.landed("encode-2", part(0, 4, attempt=3))


def test_a_repeated_move_of_an_item_lost_again_changes_nothing() -> None:
    """Its encoder has lost it since: the next key is awaited."""
    rows = receiver(10)
    admitted(rows, 4)
    rows.lost("encode", lost("evicted"))
    rows.moved(moved(2))
    assert sent(rows.lost("encode-2", lost("evicted", attempt=2)), "gateway")
    assert rows.moved(moved(2)) == []
    assert sent(rows.moved(moved(3)), "encode-2") == [pull(0, 4, attempt=3)]


def test_an_item_may_move_twice_before_anybody_hears_of_it() -> None:
    """The encoder of the second attempt died before its layout: attempt 2 is never named here."""
    rows = receiver(10)
    admitted(rows, 4)
    rows.lost("encode", lost("evicted"))
    assert sent(rows.moved(moved(3)), "encode-2") == [pull(0, 4, attempt=3)]


def test_an_item_without_an_encoder_is_awaited() -> None:
    """Admitted while it is encoded again: nobody can be asked yet, and nobody is."""
    rows = receiver(10)
    assert rows.admitted("gateway", R, prompt(4, encoder=""), [1], [0]) == []
    assert sent(rows.moved(moved(1)), "encode-2") == [pull(0, 4)]


def test_an_item_without_an_encoder_may_get_another_key() -> None:
    """The encoder of that attempt died, too."""
    rows = receiver(10)
    rows.admitted("gateway", R, prompt(4, encoder=""), [1], [0])
    assert sent(rows.moved(moved(2)), "encode-2") == [pull(0, 4, attempt=2)]


def test_an_item_without_an_encoder_ends_without_a_release() -> None:
    """The request is cancelled before the item is found."""
    rows = receiver(10)
    rows.admitted("gateway", R, prompt(4, encoder=""), [1], [0])
    assert rows.ended(R) == []


def test_text_needs_no_rows() -> None:
    """Nothing is pulled, nothing is held."""
    rows = receiver(10)
    assert admitted(rows) == []
    assert rows.held_bytes == 0
    assert rows.ended(R) == []


# ---- cached prefixes


def test_rows_of_cached_tokens_are_neither_pulled_nor_counted() -> None:
    """The quota holds rows that are needed; the item is complete without the others."""
    rows = receiver(3)
    assert sent(admitted(rows, 4, first_rows=(2,)), "encode") == [pull(2, 2)]
    assert rows.held_bytes == 2
    assert land(rows, 2, 2) == [Send("encode", release(item()))]
    assert rows.consumed(R, 3) == []
    assert rows.held_bytes == 1
    rows.consumed(R, 4)
    assert rows.held_bytes == 0


def test_consumed_rows_count_from_the_first_of_the_prompt() -> None:
    """Those that were skipped are no credit for others."""
    rows = receiver(2)
    assert sent(admitted(rows, 4, 3, first_rows=(3, 0)), "encode") == [
        pull(3, 1),
        pull(0, 1, index=1),
    ]
    assert rows.consumed(R, 3) == []
    assert sent(rows.consumed(R, 4), "encode") == [pull(1, 1, index=1)]
    assert sent(rows.consumed(R, 5), "encode") == [pull(2, 1, index=1)]


def test_the_encoder_of_an_item_that_is_cached_whole_never_hears_of_it() -> None:
    """Not at admission, not at the end, and not when it dies or has lost the rows."""
    rows = receiver(9)
    assert sent(admitted(rows, 4, 2, first_rows=(4, 1)), "encode") == [pull(1, 1, index=1)]
    land(rows, 1, 1, index=1)
    assert rows.lost("encode", lost("evicted")) == []
    assert rows.moved(moved(2)) == []
    assert rows.peer_lost("encode") == []
    assert rows.ended(R) == []


def test_an_item_that_moved_is_asked_only_for_rows_that_are_needed() -> None:
    """Skipped ones are no holes."""
    rows = receiver(9)
    admitted(rows, 5, first_rows=(2,))
    land(rows, 3, 1)
    rows.lost("encode", lost("evicted"))
    assert sent(rows.moved(moved(2)), "encode-2") == [
        pull(2, 1, attempt=2),
        pull(4, 1, attempt=2),
    ]


def test_a_part_with_rows_that_are_not_needed_is_dropped() -> None:
    """It was not asked for."""
    rows = receiver(9)
    admitted(rows, 4, first_rows=(2,))
    assert not rows.landed("encode", part(1, 2))
    assert rows.landed("encode", part(2, 2))


def test_the_first_rows_are_those_behind_the_cached_tokens() -> None:
    """One token of text around items of 3 and 2 rows: 1 + 3 + 1 + 2 + 1 tokens."""
    found = [first_rows(prompt(3, 2), token) for token in range(9)]
    assert [first for first, _ in found] == [0, 0, 1, 2, 3, 3, 3, 3, 3]
    assert [second for _, second in found] == [0, 0, 0, 0, 0, 0, 1, 2, 2]
