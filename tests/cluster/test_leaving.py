"""A draining worker: what it has goes on, nothing new comes, and when it is free to go."""

from __future__ import annotations

import pytest

from epd.types import ItemKey, Member
from epd.wire import messages as m
from tests.cluster.owning import Gateway, emitted, error, receivers, split, told
from tests.cluster.samples import decode, encode, layout, prefill, run

NAMES = ("E", "P", "D")


def draining(gateway: Gateway, *names: str) -> Gateway:
    for name in names:
        assert gateway.membership.drain(name)
    return gateway


def needed(gateway: Gateway) -> set[str]:
    """Draining workers that may not leave yet."""
    return {one.name for one in gateway.membership.draining if gateway.owner.needs(one)}


def second() -> tuple[Member, ...]:
    return encode("E2"), prefill("P2"), decode("D2")


def test_an_idle_worker_may_leave_at_once() -> None:
    assert needed(draining(split(*second()), *NAMES)) == set()


def test_a_worker_is_needed_until_its_part_in_a_request_is_over() -> None:
    """The encoder for its rows until prefill is done, prefill until decode has taken over."""
    gateway = split(*second())
    gateway.submit(items=1)
    draining(gateway, *NAMES)
    assert needed(gateway) == {"E"}
    placed = gateway.laid_out()
    assert receivers(placed, m.Reserve) == ["D2"]


def test_a_running_request_keeps_all_of_its_workers_one_after_the_other() -> None:
    gateway = split(*second())
    gateway.submit(items=1)
    gateway.laid_out()
    gateway.reserved()
    gateway.admitted()
    draining(gateway, *NAMES)
    assert needed(gateway) == {"E", "P", "D"}
    gateway.emits("P", run(0, 5))
    assert needed(gateway) == {"P", "D"}
    gateway.emits("D", run(1, 6))
    assert needed(gateway) == {"D"}
    gateway.owner.cancel("r")
    assert needed(gateway) == set()


def test_new_requests_go_to_others() -> None:
    gateway = draining(split(*second()), *NAMES)
    told_ = gateway.submit(items=1)
    assert receivers(told_, m.EncodeItem) == ["E2"]
    assert receivers(gateway.laid_out("E2"), m.Reserve) == ["D2"]
    assert receivers(gateway.reserved("D2"), m.Admit) == ["P2"]


def test_with_draining_workers_alone_a_new_request_fails_at_once() -> None:
    gateway = draining(split(), "P")
    assert error(gateway.submit()).status == 503


def test_the_last_of_a_pool_stays_for_requests_that_have_begun_in_it() -> None:
    """An old revision drains while its items are still being encoded: they end where they began."""
    old = (encode("E", pool="old"), prefill("P", pool="old"), decode("D", pool="old"))
    gateway = Gateway(*old)
    gateway.submit(items=1)
    for new in (encode("E2", pool="new"), prefill("P2", pool="new"), decode("D2", pool="new")):
        gateway.joins(new)
    draining(gateway, *NAMES)
    assert needed(gateway) == {"E", "P", "D"}
    assert receivers(gateway.laid_out(), m.Reserve) == ["D"]
    assert receivers(gateway.reserved(), m.Admit) == ["P"]
    gateway.admitted()
    gateway.emits("P", run(0, 5))
    gateway.emits("D", run(1, 6))
    assert needed(gateway) == {"D"}


@pytest.mark.parametrize("dies", ["E", "P"])
def test_a_request_whose_pool_is_gone_begins_again_in_another(dies: str) -> None:
    """As long as no token of it is out; its items are encoded there, by the other revision."""
    old = (encode("E", pool="old"), prefill("P", pool="old"), decode("D", pool="old"))
    gateway = Gateway(*old)
    gateway.submit(items=2)
    for new in (encode("E2", pool="new"), prefill("P2", pool="new"), decode("D2", pool="new")):
        gateway.joins(new)
    again = gateway.dies(dies)
    if dies == "P":
        gateway.laid_out()
        again = gateway.laid_out(index=1)
    assert receivers(again, m.EncodeItem) == ["E2", "E2"]
    assert gateway.laid_out("E2", found=layout(content=b"new")) == []
    placed = gateway.laid_out("E2", index=1, found=layout(content=b"new"))
    assert [(to, one.request.attempt) for to, one in told(placed, m.Reserve)] == [("D2", 2)]


def test_a_layout_of_the_pool_that_was_left_changes_nothing() -> None:
    gateway = Gateway(encode("E", pool="old"), prefill("P", pool="old"), decode("D", pool="old"))
    gateway.submit(items=1)
    for new in (encode("E2", pool="new"), prefill("P2", pool="new"), decode("D2", pool="new")):
        gateway.joins(new)
    gateway.dies("E")
    assert gateway.laid_out("E") == []
    assert gateway.owner.num_requests == 1


def test_a_stream_never_goes_on_in_another_pool() -> None:
    """Its words would be of two models."""
    gateway = Gateway(prefill("P", pool="old"), decode("D", pool="old"))
    gateway.running()
    assert emitted(gateway.emits("P", run(0, 5))) == [5]
    for new in (prefill("P2", pool="new"), decode("D2", pool="new")):
        gateway.joins(new)
    assert error(gateway.dies("D")).status == 503


def test_a_request_without_a_token_may_change_its_pool() -> None:
    gateway = Gateway(prefill("P", pool="old"), decode("D", pool="old"))
    gateway.running()
    for new in (prefill("P2", pool="new"), decode("D2", pool="new")):
        gateway.joins(new)
    assert receivers(gateway.dies("D"), m.Reserve) == ["D2"]


def test_where_a_request_stands_is_told_in_words() -> None:
    gateway = split()
    gateway.submit(items=1)
    (part,) = gateway.owner.standing("r")
    assert part["waits_for"] == "layouts of its items"
    assert part["items"] == [
        {"item": "image 0", "encoder": "E", "state": "waits for its layout", "attempt": 1}
    ]
    gateway.laid_out()
    (part,) = gateway.owner.standing("r")
    assert (part["phase"], part["decode"], part["prefill"]) == ("reserving", "D", "P")
    assert part["waits_for"] == "blocks on its decode worker"
    gateway.reserved()
    gateway.refused("P")
    (part,) = gateway.owner.standing("r")
    assert (part["waits_for"], part["refused_by"]) == ("room for its KV", ["P"])
    assert gateway.owner.standing("nobody") == []


def test_a_running_request_waits_for_prefill_then_for_decode() -> None:
    gateway = split()
    gateway.running()
    assert gateway.owner.standing("r")[0]["waits_for"] == "prefill"
    gateway.emits("P", run(0, 5))
    (part,) = gateway.owner.standing("r")
    assert (part["waits_for"], part["tokens"]) == ("decode", 1)


def test_an_item_of_a_draining_encoder_that_is_lost_is_encoded_elsewhere() -> None:
    gateway = split(*second())
    gateway.submit(items=1)
    draining(gateway, "E")
    gateway.membership.leave("E", "1")
    ((to, job),) = told(gateway.owner.worker_lost("E"), m.EncodeItem)
    assert (to, job.item) == ("E2", ItemKey("r", 0, 2))
