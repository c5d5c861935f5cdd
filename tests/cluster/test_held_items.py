"""Items whose KV may be cached: their towers wait, and none of them for ever."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from epd.cluster import Tell
from epd.cluster.instructions import Instruction
from epd.types import FinishReason, ItemKey, RequestKey
from epd.wire import messages as m
from tests.cluster.owning import Gateway, error, one, part, receivers, root_of, split, told
from tests.cluster.samples import encode, layout, prefill, run

SOURCE = b"digest"
ROWS = 32
BIG = layout(ROWS)
"""Two blocks of rows; with a prompt of 16 tokens before it, the item ends with block 3."""
ITEM, AGAIN = ItemKey("r", 0, 1), ItemKey("r", 0, 2)
CUT = FinishReason.LENGTH


def seen(*, cached: bool = True) -> Gateway:
    """An item of this source was answered on P and D; `cached`: the KV should still be there."""
    gateway = split(root_of=root_of)
    key = RequestKey("first", 1)
    gateway.submit("first", items=1, text=16, source=SOURCE)
    gateway.laid_out(found=BIG, request_id="first")
    gateway.reserved(request=key)
    gateway.admitted(request=key)
    gateway.emits("P", run(0, 5, request="first"))
    gateway.emits("D", run(1, 6, request="first", finish=CUT))
    if not cached:
        gateway.placement.expected.forget("P")
    return gateway


def job(instructions: Sequence[Instruction]) -> m.EncodeItem:
    found = one(instructions, m.EncodeItem)
    assert isinstance(found, m.EncodeItem)
    return found


def held() -> Gateway:
    """The same item once more; its layout is known, and it is being admitted by P."""
    gateway = seen()
    assert job(gateway.submit(items=1, text=16, source=SOURCE)).hold
    assert told(gateway.laid_out(found=BIG), m.RunTower) == []
    gateway.reserved()
    return gateway


# ---- who is held


def test_an_item_seen_for_the_first_time_is_not_held() -> None:
    gateway = split(root_of=root_of)
    assert not job(gateway.submit(items=1, source=SOURCE)).hold
    assert not job(gateway.submit("s", items=1, source=SOURCE)).hold, "none was admitted yet"


@pytest.mark.parametrize("source", [b"other", b""])
def test_only_a_source_that_was_admitted_before_is_held(source: bytes) -> None:
    """And one that nobody named is never the same."""
    gateway = seen()
    assert not job(gateway.submit(items=1, source=source)).hold
    gateway.laid_out()
    gateway.reserved()
    gateway.admitted()
    assert not job(gateway.submit("s", items=1, source=b"")).hold


def test_another_tenants_item_is_not_held() -> None:
    """KV is not shared across salts."""
    assert not job(seen().submit(items=1, source=SOURCE, salt="tenant")).hold


def test_nothing_is_held_where_no_kv_is_reused() -> None:
    """Prefix caching is off, or every logit of the prompt is wanted."""
    assert not job(seen().submit(items=1, source=SOURCE, prompt_logprobs=0)).hold
    gateway = split()
    gateway.submit("first", items=1, source=SOURCE)
    gateway.laid_out(request_id="first")
    gateway.reserved(request=RequestKey("first", 1))
    gateway.admitted(request=RequestKey("first", 1))
    assert not job(gateway.submit(items=1, source=SOURCE)).hold


# ---- run or drop


def test_an_item_of_which_nobody_should_have_kv_runs_with_its_layout() -> None:
    """It waits for no admission."""
    gateway = seen(cached=False)
    assert job(gateway.submit(items=1, text=16, source=SOURCE)).hold
    ready = gateway.laid_out(found=BIG)
    assert told(ready, m.RunTower) == [("E", m.RunTower(item=ITEM))]
    gateway.reserved()
    assert told(gateway.admitted(), m.RunTower) == []


def test_the_items_behind_the_longest_beginning_run_with_the_layouts() -> None:
    """The first of two is covered; the other is not, though its source is known."""
    gateway = seen()
    gateway.submit(items=2, text=16, source=SOURCE)
    gateway.laid_out(found=BIG)
    ready = gateway.laid_out(index=1, found=BIG)
    assert told(ready, m.RunTower) == [("E", m.RunTower(item=ItemKey("r", 1, 1)))]
    gateway.reserved()
    admitted = gateway.admitted(cached=48)
    assert admitted == [Tell("E", m.DropItem(item=ITEM))]


def test_an_item_whose_rows_are_all_cached_is_dropped() -> None:
    """Its tower never runs."""
    assert held().admitted(cached=48) == [Tell("E", m.DropItem(item=ITEM))]


def test_an_item_that_is_not_cached_after_all_runs_at_admission() -> None:
    """Its last rows were evicted since."""
    gateway = held()
    assert gateway.admitted(cached=32) == [Tell("E", m.RunTower(item=ITEM))]
    assert gateway.admitted(cached=32) == []


def test_an_item_that_was_not_held_is_dropped_too_when_it_is_cached() -> None:
    """Another gateway's request left its KV there: nobody will pull these rows."""
    gateway = split(root_of=root_of)
    gateway.submit(items=1, text=16, source=SOURCE)
    gateway.laid_out(found=BIG)
    gateway.reserved()
    assert gateway.admitted(cached=48) == [Tell("E", m.DropItem(item=ITEM))]


def test_an_item_that_is_encoded_again_and_cached_by_then_is_dropped() -> None:
    """Its encoder carries its load no more, and what still comes of it is not heard."""
    gateway = held()
    gateway.admitted(cached=32)
    gateway.lost()
    gateway.failed("D", 429)
    again = RequestKey("r", 2)
    gateway.reserved(request=again)
    assert gateway.admitted(request=again, cached=48) == [Tell("E", m.DropItem(item=AGAIN))]
    assert gateway.laid_out(attempt=2, found=BIG) == []
    assert gateway.placement.encoders.load("E") == 0


def test_a_dropped_item_can_fail_nobody() -> None:
    """Its KV is there; that its bytes cannot be read again does not matter."""
    gateway = held()
    gateway.admitted(cached=48)
    broken = m.ItemFailed(item=ITEM, status=422, code="invalid_media", reason="bad")
    assert gateway.owner.item_failed("E", broken) == []


# ---- losses: nobody waits for ever


def test_a_later_attempt_that_needs_a_dropped_item_gets_it_encoded() -> None:
    """Prefill asks its encoder, hears "not here", and says so."""
    gateway = held()
    gateway.admitted(cached=48)
    gateway.joins(prefill("P2"))
    again = RequestKey("r", 2)
    gateway.dies("P")
    admit = one(gateway.reserved(request=again), m.Admit)
    assert [(i.item, i.encoder) for i in admit.prompt.items] == [(ITEM, "E")]
    gateway.admitted("P2", again)
    found = job(gateway.lost("P2", request=again))
    assert (found.item, found.wanted, found.hold) == (AGAIN, True, False)
    moved = m.ItemMoved(request=again, item=AGAIN, encoder="E")
    assert gateway.laid_out(attempt=2, found=BIG) == [Tell("P2", moved)]


def test_a_held_item_that_is_pulled_and_lost_is_encoded_without_waiting() -> None:
    """A pull needs its rows now."""
    gateway = held()
    gateway.admitted(cached=32)
    assert not job(gateway.lost()).hold


def test_a_held_item_without_a_layout_is_held_by_the_next_encoder_too() -> None:
    """Nothing is known about it yet."""
    gateway = seen()
    gateway.joins(encode("E2"))
    (lost,) = receivers(gateway.submit(items=1, text=16, source=SOURCE), m.EncodeItem)
    found = job(gateway.dies(lost))
    assert (found.item, found.hold, found.wanted) == (AGAIN, True, False)


def test_an_item_that_is_held_keeps_no_other_suspect_waiting() -> None:
    """It may wait for memory that the other's request has."""
    gateway = seen()
    gateway.submit(items=1, text=16, source=SOURCE)
    gateway.submit("s", items=1)
    gateway.joins(encode("E2"))
    again = gateway.dies("E")
    assert [(to, j.item.request_id, j.hold) for to, j in told(again, m.EncodeItem)] == [
        ("E2", "r", True)
    ]
    known = gateway.laid_out("E2", found=BIG, attempt=2)
    assert [(to, j.item.request_id) for to, j in told(known, m.EncodeItem)] == [("E2", "s")]


def test_a_held_suspect_keeps_no_other_item_of_its_request_waiting() -> None:
    """Its tower runs or is dropped only when the other's layout is known, too."""
    gateway = seen()
    gateway.submit(items=2, text=16, source=SOURCE)
    gateway.joins(encode("E2"))
    assert [j.item for _, j in told(gateway.dies("E"), m.EncodeItem)] == [AGAIN]
    known = gateway.laid_out("E2", found=BIG, attempt=2)
    assert [(to, j.item) for to, j in told(known, m.EncodeItem)] == [("E2", ItemKey("r", 1, 2))]
    rest = gateway.laid_out("E2", index=1, found=BIG, attempt=2)
    assert receivers(rest, m.Reserve) == ["D"]


def test_a_held_items_encoder_may_die_after_its_layout_is_known() -> None:
    """The order to run goes nowhere; prefill's pull does, and says so."""
    gateway = held()
    gateway.joins(encode("E2"))
    assert gateway.dies("E") == []
    assert receivers(gateway.admitted(cached=0), m.RunTower) == ["E"]
    assert not job(gateway.lost()).hold


def test_a_held_item_runs_in_the_attempt_that_is_admitted() -> None:
    """The one that held it was refused."""
    gateway = held()
    gateway.refused("P")
    again = RequestKey("r", 2)
    assert told(gateway.owner.room(), m.RunTower) == []
    gateway.reserved(request=again)
    assert gateway.admitted(request=again) == [Tell("E", m.RunTower(item=ITEM))]


def test_the_end_of_a_request_drops_what_it_held() -> None:
    """Cancelled, or too long, before anything was decided."""
    gateway = held()
    assert Tell("E", m.DropItem(item=ITEM)) in gateway.owner.cancel("r")
    gateway.submit(items=1, text=90, source=SOURCE)
    ended = gateway.laid_out(found=BIG)
    assert error(ended).code == "context_length_exceeded"
    assert receivers(ended, m.DropItem) == ["E"]


# ---- choices that became requests of their own


def parted(*, cached: bool) -> tuple[Gateway, list[Instruction]]:
    """Decode died with tokens of two choices out; P lives and, if `cached`, has the prompt's KV."""
    gateway = held()
    gateway.owner.cancel("r")
    gateway.submit(items=1, text=16, source=SOURCE, n=2)
    gateway.laid_out(found=BIG)
    gateway.reserved()
    gateway.admitted(cached=32)
    gateway.emits("P", run(0, 5), run(0, 6, choice=1))
    if not cached:
        gateway.joins(prefill("P2"))
        return gateway, gateway.dies("P")
    return gateway, gateway.failed("D", 429)


def test_choices_on_their_own_hold_what_should_be_cached() -> None:
    gateway, parts = parted(cached=True)
    jobs = [found for _, found in told(parts, m.EncodeItem)]
    assert [found.item for found in jobs] == [ItemKey("r/0", 0, 1), ItemKey("r/1", 0, 1)]
    assert all(found.hold and found.wanted for found in jobs)
    gateway.reserved(request=part(0))
    dropped = gateway.admitted(request=part(0), cached=48)
    assert told(dropped, m.DropItem) == [("E", m.DropItem(item=ItemKey("r/0", 0, 1)))]
    gateway.reserved(request=part(1))
    ran = gateway.admitted(request=part(1), cached=0)
    assert told(ran, m.RunTower) == [("E", m.RunTower(item=ItemKey("r/1", 0, 1)))]


def test_choices_on_their_own_encode_at_once_what_is_cached_nowhere() -> None:
    _, parts = parted(cached=False)
    jobs = [found for _, found in told(parts, m.EncodeItem)]
    assert [found.hold for found in jobs] == [False, False]
