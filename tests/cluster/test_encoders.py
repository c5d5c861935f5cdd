"""Which encode worker gets an item: cost, speed, what others do there, and whose rows it has."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from epd.cluster import ItemJob
from epd.cluster.encoders import PATIENCE, Encoders
from epd.cluster.instructions import Instruction
from epd.errors import Overloaded
from epd.types import ItemKey, Member, Modality
from epd.wire import messages as m
from tests.cluster.owning import IMAGE_JOB, Gateway, error, receivers, split, told
from tests.cluster.samples import encode
from tests.cluster.test_membership import table

FOUR = [encode(f"E{k}") for k in range(4)]


def picture(pixels: int, source: bytes = b"") -> ItemJob:
    """An item that costs so much."""
    return replace(IMAGE_JOB, pixels=pixels, source=source)


class Desk:
    """Encoders, and short ways to use them."""

    def __init__(self, *members: Member) -> None:
        self.members = table(*members)
        self.encoders = Encoders(self.members)
        self.num = 0

    def send(self, job: ItemJob, salt: str = "") -> str:
        """An item goes to whom the choice falls on."""
        member = self.encoders.choose(job, salt, {""})
        assert member is not None
        self.num += 1
        self.encoders.sent(member, ItemKey("r", self.num, 1), job, salt)
        return member.name

    def ended(self, name: str, number: int) -> None:
        self.encoders.ended(name, ItemKey("r", number, 1))

    def spread(self, *pixels: int) -> Counter[str]:
        """What each worker got."""
        return Counter(self.send(picture(one)) for one in pixels)


# ---- cost and speed


def test_eight_equal_pictures_over_four_idle_workers_are_two_each() -> None:
    """A request's own items count at once."""
    assert set(Desk(*FOUR).spread(*[1000] * 8).values()) == {2}


def test_a_costly_item_keeps_the_others_away() -> None:
    """A video on one worker, all the pictures on the other."""
    desk = Desk(encode("E1"), encode("E2"))
    first = desk.send(picture(1_000_000))
    assert first not in desk.spread(*[1000] * 20)


def test_a_faster_worker_gets_more() -> None:
    """As much more as it is faster."""
    desk = Desk(encode("slow"), encode("fast"))
    for name, ms in (("slow", 300), ("fast", 100)):
        desk.encoders.reported(name, {"work_cost": 1000, "work_ms": ms, "queued_cost": 0})
    assert desk.spread(*[1000] * 40) == {"slow": 10, "fast": 30}


def test_a_worker_that_becomes_slow_is_noticed() -> None:
    """What it did long ago fades."""
    desk = Desk(encode("E1"), encode("E2"))
    for k in range(1, 40):
        slow = 100 * min(k, 10) + 1000 * max(0, k - 10)
        desk.encoders.reported("E1", {"work_cost": 1000 * k, "work_ms": slow})
        desk.encoders.reported("E2", {"work_cost": 1000 * k, "work_ms": 100 * k})
    spread = desk.spread(*[1000] * 44)
    assert spread["E2"] >= 39


def test_who_has_not_been_measured_counts_as_an_average_worker() -> None:
    """A new one is neither shunned nor buried."""
    desk = Desk(*FOUR)
    desk.encoders.reported("E0", {"work_cost": 1000, "work_ms": 10})
    assert set(desk.spread(*[1000] * 8).values()) == {2}


def test_a_report_that_tells_of_no_work_changes_no_speed() -> None:
    """Nor does a worker's that encodes nothing."""
    desk = Desk(encode("E1"), encode("E2"))
    desk.encoders.reported("E1", {"work_cost": 0, "work_ms": 0})
    desk.encoders.reported("stranger", {"work_cost": 10, "work_ms": 1})
    assert desk.spread(1000, 1000) == {"E1": 1, "E2": 1}


def test_what_is_done_counts_no_more() -> None:
    desk = Desk(encode("E1"), encode("E2"))
    first = desk.send(picture(1000))
    desk.ended(first, 1)
    desk.ended(first, 1)
    assert desk.encoders.load(first) == 0


def test_what_other_gateways_sent_counts() -> None:
    """Once two reports say so: one alone may have crossed a message of ours."""
    desk = Desk(encode("E1"), encode("E2"))
    busy = {"queued_cost": 5000}
    desk.encoders.reported("E1", busy)
    assert desk.encoders.load("E1") == 0
    desk.encoders.reported("E1", busy)
    assert desk.spread(1000, 1000, 1000) == {"E2": 3}
    desk.encoders.reported("E1", {"queued_cost": 0})
    assert desk.encoders.load("E1") == 0


def test_a_successor_starts_with_nothing() -> None:
    desk = Desk(encode("E1"))
    desk.send(picture(1000))
    desk.encoders.gone("E1")
    desk.ended("E1", 1)
    assert desk.encoders.load("E1") == 0


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=30), st.integers(1, 5))
def test_nobody_has_more_than_a_share_and_one_item(costs: list[int], num: int) -> None:
    """Of any request, over idle workers of one speed."""
    desk = Desk(*[encode(f"E{k}") for k in range(num)])
    for one in costs:
        desk.send(picture(one))
    loads = [desk.encoders.load(f"E{k}") for k in range(num)]
    assert sum(loads) == sum(costs)
    assert max(loads) <= sum(costs) / num + max(costs)


# ---- affinity


def test_equal_items_meet_on_one_worker() -> None:
    """Of one tenant; the salt of another is another item."""
    desk = Desk(*FOUR)
    first = desk.send(picture(1000, b"cat"), "us")
    desk.send(picture(1000, b"dog"), "us")
    assert desk.send(picture(1000, b"cat"), "us") == first
    assert desk.send(picture(1000, b"cat"), "them") != first


def test_a_home_that_is_overloaded_is_left() -> None:
    """When encoding once more is done sooner than waiting is worth."""
    desk = Desk(encode("E1"), encode("E2"))
    home = desk.send(picture(1000, b"cat"))
    desk.ended(home, 1)
    member = desk.members.get(home)
    assert member is not None
    desk.encoders.sent(member, ItemKey("s", 0, 1), picture(PATIENCE * 1000), "")
    assert desk.send(picture(1000, b"cat")) == home
    desk.encoders.sent(member, ItemKey("s", 1, 1), picture(1000), "")
    assert desk.send(picture(1000, b"cat")) != home


def test_what_was_there_is_not_expected_of_a_successor() -> None:
    """It gets the item as the idlest one does, not as its home."""
    desk = Desk(encode("E1"), encode("E2"))
    home = desk.send(picture(1000, b"cat"))
    desk.encoders.gone(home)
    successor = replace(encode(home), incarnation="2")
    desk.members.join(successor, {"protocol": str(m.PROTOCOL_VERSION)})
    desk.encoders.sent(successor, ItemKey("s", 0, 1), picture(100), "")
    assert desk.send(picture(1000, b"cat")) != home


# ---- modalities


def test_an_item_goes_to_a_worker_that_serves_its_modality() -> None:
    """However idle the others are."""
    sound = replace(IMAGE_JOB, modality=Modality.AUDIO)
    desk = Desk(encode("EI"), encode("EA", modalities=(Modality.AUDIO,)))
    assert [desk.send(sound) for _ in range(3)] == ["EA"] * 3


# ---- refusals, as a gateway hears them


def refuses(
    gateway: Gateway, sender: str, attempt: int = 1, *, after_ms: int = 0, index: int = 0
) -> list[Instruction]:
    """A worker has no room for an item."""
    message = m.ItemFailed(
        item=ItemKey("r", index, attempt),
        status=Overloaded.status,
        code=Overloaded.code,
        reason="full",
        retry_after_ms=after_ms,
    )
    return gateway.owner.item_failed(sender, message)


def test_a_refused_item_goes_to_another_worker() -> None:
    """Its client hears nothing of it, and the answer is the other's."""
    gateway = split(encode("E2"))
    gateway.submit(items=1)
    again = refuses(gateway, "E")
    ((to, job),) = told(again, m.EncodeItem)
    assert (to, job.item) == ("E2", ItemKey("r", 0, 2))
    assert gateway.placement.encoders.load("E") == 0
    assert gateway.laid_out("E2", attempt=2)


def test_the_client_is_refused_when_all_have_refused() -> None:
    """With the shortest time that one of them has named; the other items are let go of."""
    gateway = split(encode("E2"))
    gateway.submit(items=2)
    refuses(gateway, "E", after_ms=7000)
    ended = refuses(gateway, "E2", 2, after_ms=3000)
    found = error(ended)
    assert (found.status, found.code, found.retry_after_s) == (429, "overloaded", 3.0)
    assert receivers(ended, m.DropItem) == ["E2", "E2"]
    assert gateway.owner.idle and gateway.placement.encoders.load("E2") == 0


def test_a_worker_that_refused_once_is_asked_again_after_a_loss() -> None:
    """Room comes back."""
    gateway = split(encode("E2"))
    gateway.submit(items=1)
    refuses(gateway, "E")
    assert receivers(gateway.dies("E2"), m.EncodeItem) == ["E"]


def test_rows_that_exist_are_no_load() -> None:
    """Though they are still to be pulled; a stranger's word counts for nothing."""
    gateway = split()
    gateway.submit(items=1)
    gateway.laid_out()
    done = m.ItemDone(item=ItemKey("r", 0, 1))
    gateway.owner.item_done("stranger", done)
    assert gateway.placement.encoders.load("E") > 0
    assert gateway.owner.item_done("E", done) == []
    assert gateway.placement.encoders.load("E") == 0


def test_items_of_one_request_are_sent_in_their_order_the_costliest_chosen_first() -> None:
    """So that it does not come last, on top of the others."""
    gateway = split(encode("E2"))
    costs = iter([1000, 1000, 3000])
    jobs = tuple(picture(next(costs)) for _ in range(3))
    sent = told(gateway.submit(jobs=jobs), m.EncodeItem)
    assert [job.item.index for _, job in sent] == [0, 1, 2]
    assert sent[0][0] == sent[1][0] != sent[2][0]
