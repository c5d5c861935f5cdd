"""Workers say what they hold, and the gateway takes back what it knows nothing of."""

from __future__ import annotations

from epd.cluster import Tell
from epd.types import FinishReason, ItemKey, RequestKey
from epd.wire import messages as m
from tests.cluster.owning import Gateway, R, cancels, part, root_of, split
from tests.cluster.samples import decode, run

ITEM = ItemKey("r", 0, 1)


def says(gateway: Gateway, sender: str, *held: RequestKey | ItemKey) -> list[object]:
    """What the gateway answers to a worker that holds this."""
    requests = tuple(key for key in held if isinstance(key, RequestKey))
    items = tuple(key for key in held if isinstance(key, ItemKey))
    return [*gateway.owner.holding(sender, m.Holding(requests=requests, items=items))]


def test_what_is_held_for_a_live_request_stays() -> None:
    """At every stage of its way."""
    gateway = split()
    gateway.submit(items=1)
    assert says(gateway, "E", ITEM) == []
    gateway.laid_out()
    assert says(gateway, "D", R) == []
    gateway.reserved()
    assert says(gateway, "P", R) == []
    gateway.admitted()
    gateway.emits("P", run(0, 10))
    gateway.emits("D", run(1, 11))
    assert says(gateway, "D", R) == []
    assert says(gateway, "E", ITEM) == []


def test_what_is_held_for_nobody_is_taken_back() -> None:
    """Its Cancel got lost, say."""
    gateway = split()
    assert says(gateway, "D", R) == cancels("D")
    assert says(gateway, "E", ITEM) == [Tell("E", m.DropItem(item=ITEM))]


def test_an_ended_request_is_held_by_nobody() -> None:
    gateway = split()
    gateway.submit(items=1)
    gateway.laid_out()
    gateway.reserved()
    gateway.admitted()
    gateway.emits("P", run(0, 10, finish=FinishReason.STOP))
    assert says(gateway, "P", R) == cancels("P")
    assert says(gateway, "E", ITEM) == [Tell("E", m.DropItem(item=ITEM))]


def test_a_former_attempt_and_another_worker_hold_in_vain() -> None:
    """A frozen worker wakes up with a reserve that was meant for it before it was given up."""
    gateway = split()
    gateway.submit()
    assert says(gateway, "D", RequestKey("r", 7), R) == [
        Tell("D", m.Cancel(request=RequestKey("r", 7)))
    ]
    assert says(gateway, "P", R) == []
    assert says(gateway, "D2", R) == cancels("D2")


def test_prefill_holds_in_vain_what_it_has_handed_over() -> None:
    gateway = split()
    gateway.submit()
    gateway.reserved()
    gateway.admitted()
    gateway.emits("P", run(0, 10))
    gateway.emits("D", run(1, 11))
    assert says(gateway, "P", R) == cancels("P")


def test_a_held_tower_is_held_for_a_live_request() -> None:
    """Until its KV turns out to be cached: then the drop is said again, should it be lost."""
    gateway = split(root_of=root_of)
    gateway.submit(items=1, text=16)
    gateway.laid_out()
    gateway.reserved()
    assert says(gateway, "E", ITEM) == []
    gateway.admitted(cached=18)
    assert says(gateway, "E", ITEM) == [Tell("E", m.DropItem(item=ITEM))]


def test_choices_on_their_own_hold_under_their_own_names() -> None:
    """What is still held for all of them together is taken back."""
    gateway = split(decode("D2"))
    gateway.submit(items=1, n=2)
    gateway.laid_out()
    gateway.reserved()
    gateway.admitted()
    gateway.emits("P", run(0, 10), run(0, 20, choice=1))
    gateway.dies("D")
    mine = ItemKey("r/1", 0, 1)
    assert says(gateway, "E", mine) == []
    assert says(gateway, "E", ITEM) == [Tell("E", m.DropItem(item=ITEM))]
    assert says(gateway, "D2", part(0), part(1)) == []
    assert says(gateway, "P", R, part(1)) == cancels("P")
    gateway.owner.cancel("r")
    assert says(gateway, "D2", part(1)) == cancels("D2", request=part(1))
    assert says(gateway, "E", mine) == [Tell("E", m.DropItem(item=mine))]


def test_a_choice_that_ended_leaves_the_others_hold() -> None:
    """They share the attempt."""
    gateway = split()
    gateway.running(n=2)
    gateway.emits("P", run(0, 10), run(0, 20, choice=1))
    gateway.owner.end_choice("r", 0)
    assert says(gateway, "D", R) == []
