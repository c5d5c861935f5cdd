"""The encode side of E->P: pulls are served, rows are kept as long as somebody needs them."""

from __future__ import annotations

import pytest

from epd.handoff import DropSends, Instruction, Pin, RowSender, Send, SendRows, Unpin
from epd.types import RequestKey
from epd.wire.messages import ReleaseRows
from tests.handoff.samples import AGAIN, R, item, lost, pull


@pytest.fixture
def sender() -> RowSender:
    """It has the job of item 0."""
    sender = RowSender()
    assert sender.expect("gateway", item())
    return sender


@pytest.fixture
def made(sender: RowSender) -> RowSender:
    """And has made its 4 rows."""
    assert sender.encoded(item(), 4) == []
    return sender


def release(sender: RowSender, peer: str, request: RequestKey = R) -> list[Instruction]:
    """The peer has what this attempt of the request needs."""
    return sender.release(peer, ReleaseRows(request=request, item=item()))


def test_a_pull_waits_for_the_tower(sender: RowSender) -> None:
    """Credit may come before the rows do; they are pinned and sent when they exist."""
    assert sender.pull("prefill", pull(0, 2)) == []
    assert sender.encoded(item(), 4) == [Pin(item()), SendRows("prefill", R, item(), 0, 2)]


def test_rows_that_exist_are_sent_at_once(made: RowSender) -> None:
    """The first pull pins them, the second need not."""
    assert made.pull("prefill", pull(0, 2)) == [
        Pin(item()),
        SendRows("prefill", R, item(), 0, 2),
    ]
    assert made.pull("prefill", pull(2, 2)) == [SendRows("prefill", R, item(), 2, 2)]


@pytest.mark.parametrize(("first", "num"), [(0, 5), (4, 1), (-1, 2), (0, 0), (2, -1)])
def test_rows_that_do_not_exist_are_reported_lost(made: RowSender, first: int, num: int) -> None:
    """And nothing is pinned for them."""
    assert made.pull("prefill", pull(first, num)) == [
        Send("prefill", lost("the item has 4 rows")),
    ]


def test_an_item_that_is_not_here_is_reported_lost_at_once() -> None:
    """Nobody waits for a timeout where the fault is known."""
    assert RowSender().pull("prefill", pull(0, 2)) == [Send("prefill", lost("not here"))]


def test_rows_that_are_gone_are_reported_to_who_waits(sender: RowSender) -> None:
    """The tower failed: every waiting pull is answered, the item is unknown from then on."""
    sender.pull("prefill", pull(0, 2))
    sender.pull("other", pull(1, 2))
    assert sender.gone(item(), "broken") == [
        Send("prefill", lost("broken")),
        Send("other", lost("broken")),
    ]
    assert sender.num_items == 0
    assert sender.pull("prefill", pull(0, 2)) == [Send("prefill", lost("not here"))]


def test_what_is_unknown_cannot_go(sender: RowSender) -> None:
    """Events about other items change nothing."""
    assert sender.gone(item(7), "evicted") == []
    assert sender.encoded(item(7), 3) == []
    assert sender.num_items == 1


def test_the_same_job_is_taken_once(sender: RowSender) -> None:
    """A repeated EncodeItem must not run the tower twice."""
    assert not sender.expect("gateway", item())


def test_a_drop_before_its_job_refuses_the_late_job() -> None:
    """The client left while the job was under way: nobody would ever drop it again."""
    sender = RowSender()
    assert sender.drop(item()) == [DropSends(item())]
    assert not sender.expect("gateway", item())
    assert sender.num_items == 0


def test_a_dropped_item_is_encoded_for_nobody(sender: RowSender) -> None:
    """Its rows come out of the tower after the drop."""
    sender.drop(item())
    assert sender.encoded(item(), 4) == []


def test_an_item_that_went_is_not_taken_again(made: RowSender) -> None:
    """Its next attempt has another key."""
    made.gone(item(), "evicted")
    assert not made.expect("gateway", item())
    assert made.expect("gateway", item(attempt=2))


def test_the_last_release_unpins(made: RowSender) -> None:
    """Two prefill workers pull the same item; the rows stay until both have what they need."""
    made.pull("prefill", pull(0, 4))
    made.pull("other", pull(0, 4, request=AGAIN))
    assert release(made, "prefill") == []
    assert release(made, "other", AGAIN) == [DropSends(item()), Unpin(item())]


def test_a_repeated_release_changes_nothing(made: RowSender) -> None:
    """Nor does one from who never pulled, or of an item that is gone."""
    made.pull("prefill", pull(0, 4))
    assert release(made, "stranger") == []
    assert release(made, "prefill") == [DropSends(item()), Unpin(item())]
    assert release(made, "prefill") == []
    made.drop(item())
    assert release(made, "prefill") == []


def test_a_release_withdraws_what_waits(sender: RowSender) -> None:
    """The request ended before the tower ran: nothing is sent to it."""
    sender.pull("prefill", pull(0, 2))
    assert release(sender, "prefill") == []
    assert sender.encoded(item(), 4) == []


def test_a_dead_puller_lets_go_of_everything(made: RowSender) -> None:
    """Of what it pulled and of what it waits for; other pullers keep theirs."""
    made.expect("gateway", item(1))
    made.pull("prefill", pull(0, 4))
    made.pull("prefill", pull(0, 1, index=1))
    assert made.peer_lost("prefill") == [DropSends(item()), Unpin(item())]
    assert made.encoded(item(1), 1) == []


def test_a_dead_gateway_leaves_its_items(made: RowSender) -> None:
    """They are named, to be dropped; another gateway's are not."""
    made.expect("other gateway", item(1))
    assert made.held_for("gateway") == (item(),)


def test_a_late_release_of_one_attempt_leaves_the_rows_to_the_next(made: RowSender) -> None:
    """Both attempts run on the same prefill worker, and a repeat of the first's release is late."""
    made.pull("prefill", pull(0, 4))
    release(made, "prefill", R)
    made.pull("prefill", pull(0, 4, request=AGAIN))
    assert release(made, "prefill", R) == []
    assert release(made, "prefill", AGAIN) == [DropSends(item()), Unpin(item())]


def test_a_release_withdraws_only_what_its_own_attempt_waits_for(sender: RowSender) -> None:
    """The next attempt has pulled already."""
    sender.pull("prefill", pull(0, 2))
    sender.pull("prefill", pull(0, 2, request=AGAIN))
    release(sender, "prefill", R)
    assert sender.encoded(item(), 4) == [Pin(item()), SendRows("prefill", AGAIN, item(), 0, 2)]


def test_a_drop_answers_everybody_who_waits(sender: RowSender) -> None:
    """An encoder that takes a living gateway for dead drops its items: no puller may hang."""
    sender.pull("prefill", pull(0, 2))
    sender.pull("other", pull(0, 2, request=AGAIN))
    assert sender.drop(item()) == [
        DropSends(item()),
        Send("other", lost("dropped", request=AGAIN)),
        Send("prefill", lost("dropped")),
    ]


def test_a_drop_answers_whoever_has_not_got_all_its_rows(made: RowSender) -> None:
    """What was still queued for it will never be sent; once is enough, however often it pulled."""
    made.pull("prefill", pull(0, 2))
    made.pull("prefill", pull(2, 2))
    assert made.drop(item()) == [DropSends(item()), Send("prefill", lost("dropped"))]
    assert made.drop(item()) == [DropSends(item())]
