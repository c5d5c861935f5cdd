"""Requests of several choices: one stream each, ended one by one, gone on with one by one."""

from __future__ import annotations

from epd.cluster import Accepted, Tell, asked_as
from epd.types import FinishReason, ItemKey, Member, RequestKey
from epd.wire import messages as m
from tests.cluster.owning import (
    Gateway,
    R,
    cancels,
    emits,
    emitted,
    error,
    one,
    part,
    receivers,
    split,
    told,
)
from tests.cluster.samples import decode, encode, fused, layout, prefill, run

STOP = FinishReason.STOP


def running(*more: Member, n: int = 3, tokens: int = 1) -> Gateway:
    """A request of some choices runs on P and D; each has so many tokens, 10 * choice + index."""
    gateway = split(*more)
    gateway.running(n=n)
    for index in range(tokens):
        sender = "D" if index else "P"
        runs = [run(index, 10 * c + index, choice=c) for c in range(n)]
        gateway.emits(sender, *runs)
    return gateway


def stop(choice: int, request: RequestKey = R) -> list[Tell]:
    message = m.StopChoice(request=request, choice=choice)
    return [Tell("P", message), Tell("D", message)]


# ---- one attempt


def test_all_choices_are_admitted_together() -> None:
    """With room for as many answers."""
    gateway = split()
    reserve = one(gateway.submit(n=3), m.Reserve)
    assert reserve.num_tokens == 4 + 3 * 10
    admit = one(gateway.reserved(), m.Admit)
    assert (admit.sampling.n, admit.sampling.first_choice, admit.first_index) == (3, 0, 0)


def test_room_for_long_answers_is_held_step_by_step_for_each() -> None:
    gateway = Gateway(fused(kv_tokens=1000), max_context=1000)
    assert one(gateway.submit(n=3, max_tokens=500), m.Admit).num_tokens == 4 + 3 * 64


def test_each_choice_has_a_stream_of_its_own() -> None:
    """In order within it, whatever comes first."""
    gateway = running(n=2)
    assert gateway.emits("D", run(2, 12, choice=1)) == []
    told = gateway.emits("D", run(1, 1), run(1, 11, choice=1))
    assert emitted(told) == [1]
    assert emitted(told, choice=1) == [11, 12]


def test_a_request_ends_with_its_last_choice() -> None:
    """Not before; the last run says so."""
    gateway = running(n=2)
    first = gateway.emits("D", run(1, 1, finish=STOP))
    assert [(e.run.choice, e.last) for e in emits(first)] == [(0, False)]
    assert told(first, m.Cancel) == []
    last = gateway.emits("D", run(1, 11, choice=1, finish=STOP))
    assert [(e.run.choice, e.last) for e in emits(last)] == [(1, True)]
    assert receivers(last, m.Cancel) == ["D"]
    assert gateway.owner.idle


def test_prefill_is_done_when_every_choice_has_its_first_token() -> None:
    """Each of them comes from prefill alone; a choice that ended waits for none."""
    gateway = split()
    gateway.running(n=3)
    gateway.emits("P", run(0, 1), run(0, 2, choice=2, finish=STOP))
    gateway.emits("D", run(1, 2))
    held = m.Holding(requests=(R,), items=())
    assert gateway.owner.holding("P", held) == []
    gateway.emits("P", run(0, 10, choice=1))
    gateway.emits("D", run(2, 3))
    assert gateway.owner.holding("P", held) == cancels("P")


def test_a_choice_that_was_never_asked_for_is_stopped() -> None:
    gateway = running(n=2)
    unknown = m.StopChoice(request=R, choice=7)
    assert gateway.emits("D", run(0, 1, choice=7)) == [Tell("D", unknown)]


# ---- the client ends one


def test_a_choice_of_which_no_more_is_wanted_is_stopped_on_its_workers() -> None:
    """Once; what still comes of it goes nowhere, and says again that it is not wanted."""
    gateway = running(n=2)
    assert gateway.owner.end_choice("r", 0) == stop(0)
    assert gateway.owner.end_choice("r", 0) == []
    assert gateway.emits("D", run(1, 1), run(1, 11, choice=1))[0] == stop(0)[1]
    assert emitted(gateway.emits("D", run(2, 12, choice=1)), choice=1) == [12]


def test_the_last_choice_that_the_client_ends_ends_the_request() -> None:
    gateway = running(n=2)
    gateway.emits("D", run(1, 11, choice=1, finish=STOP))
    assert gateway.owner.owns("r")
    assert gateway.owner.end_choice("r", 0) == cancels("D")
    assert gateway.owner.idle and not gateway.owner.owns("r")
    assert gateway.owner.end_choice("r", 0) == []


def test_nobody_ends_what_is_not_there() -> None:
    gateway = running(n=2)
    assert gateway.owner.end_choice("r", 2) == []
    assert gateway.owner.end_choice("s", 0) == []


def test_the_room_of_an_ended_request_goes_to_the_next() -> None:
    gateway = running(n=1)
    gateway.submit("s")
    gateway.refused("D", RequestKey("s", 1))
    gateway.submit("t")
    assert told(gateway.owner.end_choice("r", 0), m.Reserve) == []
    assert one(gateway.owner.room(), m.Reserve).request == RequestKey("s", 2)


# ---- the next attempt


def test_without_tokens_all_choices_begin_together_again() -> None:
    gateway = running(decode("D2"), tokens=0)
    reserve = one(gateway.dies("D"), m.Reserve)
    assert (reserve.request, reserve.num_tokens) == (RequestKey("r", 2), 34)


def test_after_tokens_each_choice_goes_on_as_a_request_of_its_own() -> None:
    """Its prompt ends with its own tokens; its number and its indices stay."""
    gateway = running(decode("D2"), tokens=2)
    lost = gateway.dies("D")
    reserves = [reserve for _, reserve in told(lost, m.Reserve)]
    assert [reserve.request for reserve in reserves] == [part(0), part(1), part(2)]
    assert {reserve.num_tokens for reserve in reserves} == {14}
    assert receivers(lost, m.Cancel) == ["D"]
    admit = one(gateway.reserved("D2", part(2)), m.Admit)
    assert admit.prompt.token_ids() == [1, 1, 1, 1, 20, 21]
    sampling = admit.sampling
    assert (sampling.n, sampling.first_choice, sampling.max_tokens) == (1, 2, 10)
    assert admit.first_index == 2
    gateway.admitted("P", part(2))
    found = gateway.emits("P", run(2, 22, choice=2, request="r/2"))
    assert [(e.request_id, e.run.first_index) for e in emits(found)] == [("r", 2)]
    assert emitted(found, choice=2) == [22]
    assert asked_as("r/2") == "r" == asked_as("r")


def test_a_choice_without_tokens_begins_with_the_others_that_have_some() -> None:
    """What was ahead of it comes again."""
    gateway = split(decode("D2"))
    gateway.running(n=2)
    gateway.emits("P", run(0, 1))
    gateway.emits("D", run(1, 11, choice=1))
    gateway.dies("D")
    admit = one(gateway.reserved("D2", part(1)), m.Admit)
    assert (admit.prompt.token_ids(), admit.first_index) == ([1] * 4, 0)
    again = run(0, 30, choice=1, request="r/1")
    assert emitted(gateway.emits("P", again), choice=1) == [30]


def test_a_choice_that_ended_stays_ended() -> None:
    """By itself, or by the client's word; only the others go on."""
    gateway = running(decode("D2"), n=4)
    gateway.emits("D", run(1, 1, finish=STOP))
    gateway.owner.end_choice("r", 2)
    reserves = [reserve.request for _, reserve in told(gateway.dies("D"), m.Reserve)]
    assert reserves == [part(1), part(3)]


def test_the_only_choice_that_is_left_goes_on_in_the_same_request() -> None:
    gateway = running(decode("D2"), n=2)
    gateway.emits("D", run(1, 1, finish=STOP))
    again = RequestKey("r", 2)
    assert one(gateway.dies("D"), m.Reserve).request == again
    admit = one(gateway.reserved("D2", again), m.Admit)
    assert (admit.sampling.n, admit.sampling.first_choice) == (1, 1)
    assert admit.prompt.token_ids() == [1, 1, 1, 1, 10]
    gateway.admitted(request=again)
    stopped = gateway.emits("P", run(1, 1, attempt=2))
    assert stopped == [Tell("P", m.StopChoice(request=again, choice=0))]
    last = gateway.emits("P", run(1, 11, choice=1, attempt=2, finish=STOP))
    assert emits(last)[0].last and gateway.owner.idle


def test_a_choice_that_was_ended_before_its_first_token_is_not_begun_again() -> None:
    """The others can no longer be named as a range."""
    gateway = running(n=3, tokens=0)
    gateway.owner.end_choice("r", 1)
    reserves = [reserve.request for _, reserve in told(gateway.failed("D", 429), m.Reserve)]
    assert reserves == [part(0), part(2)]


def test_an_attempt_that_was_placed_before_a_choice_ended_stops_it() -> None:
    """Its workers are told while they reserve; who learns of the choice later is told again."""
    gateway = split()
    gateway.submit(n=2)
    assert gateway.owner.end_choice("r", 0) == stop(0)
    gateway.reserved()
    gateway.admitted()
    assert gateway.emits("P", run(0, 1), run(0, 10, choice=1))[0] == stop(0)[0]


def test_refused_choices_keep_their_place_and_do_not_ask_again() -> None:
    """One was ended while all were reserved, so the others wait by themselves."""
    gateway = split()
    gateway.submit(n=3)
    gateway.owner.end_choice("r", 0)
    gateway.refused("D")
    gateway.submit("s")
    assert gateway.owner.num_waiting == 3
    assert gateway.owner.num_requests == 2
    assert one(gateway.owner.room(), m.Reserve).request == part(1)
    gateway.reserved(request=part(1))
    assert one(gateway.admitted(request=part(1)), m.Reserve).request == part(2)


# ---- their items


def with_item(*more: Member) -> Gateway:
    """Two choices about one image have a token each; prefill P2 is there."""
    gateway = split(prefill("P2"), *more)
    gateway.submit(items=1, n=2)
    gateway.laid_out()
    gateway.reserved()
    gateway.admitted()
    gateway.emits("P", run(0, 1), run(0, 10, choice=1))
    return gateway


def test_items_are_encoded_again_for_each_choice() -> None:
    """Under its own name; where the rows are is told when they have a home."""
    gateway = with_item()
    lost = gateway.dies("P")
    assert receivers(lost, m.DropItem) == ["E"]
    items = [(job.item, job.wanted) for _, job in told(lost, m.EncodeItem)]
    assert items == [(ItemKey("r/0", 0, 1), True), (ItemKey("r/1", 0, 1), True)]
    admit = one(gateway.reserved(request=part(1)), m.Admit)
    assert [placed.encoder for placed in admit.prompt.items] == [""]
    moved = m.ItemMoved(request=part(1), item=ItemKey("r/1", 0, 1), encoder="E")
    assert gateway.laid_out(request_id="r/1") == [Tell("P2", moved)]


def test_an_item_that_is_different_for_one_choice_fails_all_of_them() -> None:
    """Once."""
    gateway = with_item()
    gateway.dies("P")
    ended = gateway.laid_out(request_id="r/1", found=layout(content=b"other"))
    assert "image 0: came back different" in error(ended).message
    assert gateway.owner.idle
    assert len(receivers(ended, m.DropItem)) == 2


def test_no_encoder_for_the_choices_fails_the_request_once() -> None:
    gateway = with_item()
    gateway.membership.leave("E", "1")
    ended = gateway.dies("P")
    assert error(ended).status == 503
    assert gateway.owner.idle


# ---- ends


def parted(*more: Member) -> Gateway:
    """Two choices became requests of their own, admitted by P and D2."""
    gateway = running(decode("D2"), *more, n=2)
    gateway.dies("D")
    for choice in range(2):
        gateway.reserved("D2", part(choice))
        gateway.admitted(request=part(choice))
    return gateway


def test_the_end_of_one_part_is_not_the_end_of_the_request() -> None:
    gateway = parted()
    first = gateway.emits("P", run(1, 1, request="r/0", finish=STOP))
    assert [e.last for e in emits(first)] == [False]
    assert receivers(first, m.Cancel) == ["P", "D2"]
    last = gateway.emits("P", run(1, 11, choice=1, request="r/1", finish=STOP))
    assert [e.last for e in emits(last)] == [True]
    assert gateway.owner.idle


def test_the_client_ends_one_part() -> None:
    """It is all of that request, so that is cancelled."""
    gateway = parted()
    assert gateway.owner.end_choice("r", 0) == cancels("P", "D2", request=part(0))
    assert gateway.owner.num_requests == 1
    assert gateway.owner.end_choice("r", 1) == cancels("P", "D2", request=part(1))
    assert gateway.owner.idle


def test_a_cancel_reaches_every_part() -> None:
    ended = parted().owner.cancel("r")
    both = [cancels("P", "D2", request=part(choice)) for choice in range(2)]
    assert ended == [*both[0], *both[1]]


def test_the_failure_of_one_part_is_that_of_the_request() -> None:
    """Said once; the others are cancelled."""
    gateway = parted()
    ended = gateway.failed("P", 500, part(1))
    assert error(ended).status == 500
    assert set(cancels("P", "D2", request=part(0))) <= set(ended)
    assert gateway.failed("P", 500, part(0)) == []
    assert gateway.owner.idle


def test_parts_count_their_own_deaths_from_those_before_the_parting() -> None:
    """The one that parted them counts for each; the fourth of either is one too many."""
    gateway = parted()
    for attempt in (1, 2):
        for choice in (0, 1):
            again = gateway.failed("P", 503, part(choice, attempt))
            assert one(again, m.Reserve).request == part(choice, attempt + 1)
    assert error(gateway.failed("P", 503, part(1, 3))).status == 503
    assert gateway.owner.idle


def test_a_death_that_was_counted_counts_for_no_part_again() -> None:
    """Prefill's word parts them; the news of decode's death comes later."""
    gateway = running(n=2)
    gateway.failed("P", 503)
    gateway.joins(decode("D2"))
    assert len(told(gateway.dies("D"), m.Reserve)) == 2
    for attempt in (2, 3):
        again = gateway.failed("P", 503, part(0, attempt))
        assert one(again, m.Reserve).request == part(0, attempt + 1)
    assert error(gateway.failed("P", 503, part(0, 4))).status == 503


def test_a_worker_that_takes_all_parts_with_it_is_mourned_by_each() -> None:
    """The second death with them and nobody else: one part fails, the rest end without a word."""
    gateway = parted()
    gateway.membership.leave("P", "1")
    ended = gateway.owner.worker_lost("P")
    assert error(ended).status == 500
    assert gateway.owner.idle


def test_a_worker_that_is_one_too_many_for_two_parts_fails_the_request_once() -> None:
    """The second part has ended with the first when its turn comes."""
    gateway = parted(prefill("P2"))
    for attempt in (1, 2):
        for choice in (0, 1):
            gateway.failed("D2", 503, part(choice, attempt))
    assert error(gateway.dies("D2")).status == 503
    assert gateway.owner.idle


def test_choices_that_fit_nowhere_together_are_made_one_by_one() -> None:
    """Each by itself would do."""
    gateway = Gateway(encode(), fused(kv_tokens=20))
    gateway.submit(items=1, n=2, max_tokens=10)
    ready = gateway.laid_out()
    assert ready[0] == Accepted("r", 6)
    assert [to.item for _, to in told(ready, m.EncodeItem)] == [
        ItemKey("r/0", 0, 1),
        ItemKey("r/1", 0, 1),
    ]
    assert [(admit.request, admit.num_tokens) for _, admit in told(ready, m.Admit)] == [
        (part(0), 16),
        (part(1), 16),
    ]
