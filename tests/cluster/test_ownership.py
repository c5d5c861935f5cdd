"""The gateway's decisions about every request, from its first job to its last token."""

from __future__ import annotations

import pytest

from epd.cluster import Accepted, Tell
from epd.types import FinishReason, ItemKey, Member, RequestKey
from epd.wire import messages as m
from tests.cluster.owning import (
    Gateway,
    R,
    cancels,
    emitted,
    error,
    receivers,
    reserve,
    root_of,
    split,
    told,
)
from tests.cluster.samples import decode, encode, fused, layout, prefill, run

STOP = FinishReason.STOP


# ---- the way of a request


def test_a_text_request_is_reserved_then_admitted_then_streamed() -> None:
    """Decode's blocks first, then prefill's; tokens of both make one stream."""
    gateway = split()
    assert gateway.submit() == [Accepted("r", 4), reserve()]
    (to, admit), *rest = told(gateway.reserved(), m.Admit)
    assert (to, rest) == ("P", [])
    assert (admit.request, admit.decode, admit.num_tokens, admit.first_index) == (R, "D", 4, 0)
    assert admit.prompt.token_ids() == [1] * 4
    assert gateway.admitted() == []
    assert emitted(gateway.emits("P", run(0, 10))) == [10]
    assert emitted(gateway.emits("D", run(1, 11, finish=STOP))) == [11]
    assert gateway.owner.idle


def test_items_are_spread_over_encoders_and_awaited() -> None:
    """The prompt's length is known with the last layout."""
    gateway = split(encode("E2"))
    jobs = told(gateway.submit(items=2), m.EncodeItem)
    assert [to for to, _ in jobs] == ["E", "E2"]
    assert [job.item for _, job in jobs] == [ItemKey("r", 0, 1), ItemKey("r", 1, 1)]
    assert gateway.laid_out("E2", index=1) == []
    assert gateway.laid_out("E") == [Accepted("r", 8), reserve(num=18)]


def test_the_ids_of_a_prompt_are_told_to_who_wants_them_items_included() -> None:
    gateway = split()
    gateway.submit(items=1, text=(7, 8), tells_prompt=True)
    accepted, *_ = gateway.laid_out("E")
    assert accepted == Accepted("r", 4, (7, 8, *layout().token_ids), ((2, 4),))


def test_a_fused_worker_is_admitted_without_a_reservation() -> None:
    """It holds KV for the answer itself."""
    gateway = Gateway(fused())
    (to, admit), *_ = told(gateway.submit(), m.Admit)
    assert (to, admit.decode, admit.num_tokens) == ("F", None, 14)
    assert gateway.admitted("F") == []
    assert emitted(gateway.emits("F", run(0, 10, 11, finish=STOP))) == [10, 11]
    assert gateway.owner.idle


def test_kv_for_a_long_answer_is_held_step_by_step() -> None:
    """Only some of it at admission; decode grows from there."""
    gateway = Gateway(prefill(kv_tokens=1000), decode(kv_tokens=1000), max_context=1000)
    assert gateway.submit(max_tokens=500)[1] == reserve(num=4 + 64)


def test_the_last_token_takes_everything_back() -> None:
    """Every worker that may hold something is told; the items, too."""
    gateway = split()
    gateway.submit(items=1)
    gateway.laid_out()
    gateway.reserved()
    gateway.admitted()
    ended = gateway.emits("P", run(0, 10, finish=STOP))
    assert ended[1:] == [*cancels("P", "D"), Tell("E", m.DropItem(item=ItemKey("r", 0, 1)))]


def test_the_first_token_ending_a_request_gives_the_decode_reservation_back() -> None:
    """Prefill sampled an end of sequence: nothing was ever handed over."""
    gateway = split()
    gateway.running()
    ended = gateway.emits("P", run(0, 10, finish=STOP))
    assert "D" in receivers(ended, m.Cancel)


def test_a_cancel_reaches_every_worker() -> None:
    """The client left while an item was being encoded, or while tokens came."""
    gateway = split()
    gateway.submit(items=1)
    assert gateway.owner.cancel("r") == [Tell("E", m.DropItem(item=ItemKey("r", 0, 1)))]
    assert gateway.owner.cancel("r") == []
    gateway.running("s")
    assert gateway.owner.cancel("s") == cancels("P", "D", request=RequestKey("s", 1))
    assert gateway.owner.idle


@pytest.mark.parametrize("ends", ["cancel", "choice"])
def test_a_request_can_end_before_its_items_are_known(ends: str) -> None:
    """There is no prompt yet whose KV could be of use."""
    gateway = split(root_of=root_of)
    gateway.submit(items=1)
    owner = gateway.owner
    ended = owner.cancel("r") if ends == "cancel" else owner.end_choice("r", 0)
    assert ended == [Tell("E", m.DropItem(item=ItemKey("r", 0, 1)))]


# ---- limits


def test_a_prompt_that_fills_the_context_is_a_400() -> None:
    """There would be no room for one token of answer."""
    gateway = split(max_context=4)
    found = error(gateway.submit())
    assert (found.status, found.code) == (400, "context_length_exceeded")
    assert "4 tokens" in found.message
    assert gateway.owner.idle


def test_the_largest_workers_bound_the_context() -> None:
    """Of each stage; a smaller one beside it does not matter."""
    gateway = Gateway(prefill(kv_tokens=50), decode("D1", kv_tokens=10), decode(kv_tokens=30))
    assert gateway.owner.context_limit() == 30
    assert Gateway(max_context=70).owner.context_limit() == 70


def test_the_answer_ends_where_the_context_does() -> None:
    """max_tokens is lowered, so that the last token still has KV."""
    gateway = split(max_context=10)
    gateway.submit(max_tokens=50)
    (_, admit), *_ = told(gateway.reserved(), m.Admit)
    assert admit.sampling.max_tokens == 6


def test_a_request_that_can_never_fit_is_a_400() -> None:
    """The worker says so, and the reservation of the other goes back."""
    gateway = split()
    gateway.submit()
    gateway.reserved()
    ended = gateway.refused("P", never=True)
    assert (error(ended).status, error(ended).code) == (400, "context_length_exceeded")
    assert "D" in receivers(ended, m.Cancel)


# ---- nobody there


@pytest.mark.parametrize(
    ("members", "stage"),
    [
        ([prefill(), decode()], "encode"),
        ([encode(), decode()], "prefill"),
        ([encode(), prefill()], "decode"),
    ],
)
def test_no_worker_of_a_stage_is_a_503_at_once(members: list[Member], stage: str) -> None:
    """Also for the stages after encode: nothing is fetched in vain."""
    gateway = Gateway(*members)
    ended = gateway.submit(items=1)
    assert error(ended).status == 503
    assert stage in error(ended).message
    assert told(ended, m.EncodeItem) == []
    assert gateway.owner.idle


def test_a_stage_that_dies_while_an_item_is_encoded_is_a_503() -> None:
    """Said as soon as it is needed; nobody waits for it to come back."""
    gateway = split()
    gateway.submit(items=1)
    assert gateway.dies("D") == []
    ended = gateway.laid_out()
    assert error(ended).status == 503
    assert receivers(ended, m.DropItem) == ["E"]


def test_an_item_that_nobody_can_encode_leaves_no_job_behind() -> None:
    """The encoder was there when the request came, and died while it had to encode again."""
    gateway = split()
    gateway.submit(items=1)
    assert error(gateway.dies("E")).status == 503
    assert gateway.owner.idle


# ---- refusals


def test_a_refused_request_gives_back_what_it_held_and_is_not_overtaken() -> None:
    """Nobody holds one thing while waiting for another; the younger one waits behind."""
    gateway = split()
    gateway.submit("r")
    gateway.reserved()
    assert gateway.refused("P") == cancels("D")
    assert told(gateway.submit("s"), m.Reserve) == []
    assert gateway.owner.num_waiting == 2
    assert gateway.owner.room() == [reserve(RequestKey("r", 2))]
    assert gateway.owner.num_waiting == 1


def test_who_was_overtaken_by_none_lets_the_next_one_go() -> None:
    """As soon as everything it needs is held."""
    gateway = split()
    gateway.submit("r")
    gateway.refused("D")
    gateway.submit("s")
    again = RequestKey("r", 2)
    assert gateway.owner.room() == [reserve(again)]
    assert told(gateway.reserved(request=again), m.Reserve) == []
    assert gateway.admitted(request=again) == [reserve(RequestKey("s", 1))]


@pytest.mark.parametrize(
    ("priorities", "first"),
    [((0, 0, 0), "a"), ((0, -1, 0), "b"), ((0, -1, -2), "c"), ((0, 1, 2), "a"), ((1, 0, 0), "b")],
)
def test_of_those_that_wait_the_lowest_priority_goes_first(
    priorities: tuple[int, ...], first: str
) -> None:
    """And of equal ones who came first."""
    gateway = split()
    gateway.submit("r", priority=-9)
    gateway.refused("D")
    for name, priority in zip("abc", priorities, strict=True):
        gateway.submit(name, priority=priority)
    assert gateway.owner.num_waiting == 4
    [(_, found), *_] = told(gateway.owner.cancel("r"), m.Reserve)
    assert found.request.request_id == first


@pytest.mark.parametrize(("num_between", "first"), [(0, "new"), (1, "new"), (2, "old"), (3, "old")])
def test_nobody_is_overtaken_for_ever(
    monkeypatch: pytest.MonkeyPatch, num_between: int, first: str
) -> None:
    """A step of priority is worth so many places: who came that much earlier goes first."""
    monkeypatch.setattr("epd.cluster.queue.PLACES", 2.5)
    gateway = split()
    gateway.submit("old")
    gateway.refused("D", RequestKey("old", 1))
    for number in range(num_between):
        gateway.submit(f"x{number}")
    gateway.submit("new", priority=-1)
    [(_, found), *_] = told(gateway.owner.room(), m.Reserve)
    assert found.request.request_id == first


def test_requests_that_were_never_refused_are_placed_side_by_side() -> None:
    """Nobody waits for another's answer."""
    gateway = split()
    assert reserve(RequestKey("r", 1)) in gateway.submit("r")
    assert reserve(RequestKey("s", 1)) in gateway.submit("s")


def test_a_refused_request_goes_to_another_worker() -> None:
    """It waits only when all have refused."""
    gateway = split(decode("D2"))
    gateway.submit()
    again = RequestKey("r", 2)
    assert gateway.refused("D") == [*cancels("P"), reserve(again, to="D2")]
    assert gateway.refused("D2", again) == cancels("P", request=again)
    assert gateway.owner.num_waiting == 1


def test_a_request_waits_for_a_large_worker_instead_of_failing_on_a_small_one() -> None:
    """ "Never" of the small one is not the cluster's answer."""
    gateway = Gateway(prefill(), decode("small", kv_tokens=10), decode(kv_tokens=50))
    gateway.submit()
    assert gateway.refused("D") == cancels("P")
    assert gateway.owner.room() == [reserve(RequestKey("r", 2))]


def test_a_new_worker_is_room() -> None:
    """Who waits is placed on it at once."""
    gateway = split()
    gateway.submit()
    gateway.refused("D")
    assert gateway.joins(decode("D2")) == [reserve(RequestKey("r", 2), to="D2")]


def test_who_leaves_the_head_of_the_queue_lets_the_next_one_try() -> None:
    """A large request waits for most of a worker; a small one behind it may fit right now."""
    gateway = split()
    gateway.submit("r")
    gateway.refused("D")
    gateway.submit("s")
    assert gateway.owner.cancel("r") == [reserve(RequestKey("s", 1))]


def test_a_cancel_behind_the_head_of_the_queue_tries_nobody() -> None:
    """The head still waits for room."""
    gateway = split()
    gateway.submit("r")
    gateway.refused("D")
    gateway.submit("s")
    assert gateway.owner.cancel("s") == []
    assert gateway.owner.num_waiting == 1


# ---- tokens


def test_an_attempts_tokens_are_emitted_once_and_in_order_from_both_workers() -> None:
    """Decode's overtake prefill's, and some come twice."""
    gateway = split()
    gateway.running()
    assert gateway.emits("D", run(1, 11)) == []
    assert emitted(gateway.emits("P", run(0, 10))) == [10, 11]
    assert gateway.emits("P", run(0, 10)) == []
    assert emitted(gateway.emits("D", run(1, 11), run(2, 12))) == [12]


def test_tokens_are_emitted_once_and_in_order_across_attempts() -> None:
    """What the dead attempt still had under way is dropped, and its worker told to stop."""
    gateway = split(decode("D2"))
    gateway.running()
    gateway.emits("P", run(0, 10))
    gateway.emits("D", run(2, 12))
    gateway.dies("D")
    assert gateway.emits("D", run(1, 11)) == cancels("D")
    assert emitted(gateway.emits("P", run(1, 21, attempt=2))) == [21]
    assert emitted(gateway.emits("D2", run(2, 22, attempt=2, finish=STOP))) == [22]


def test_tokens_of_an_ended_request_stop_their_worker() -> None:
    """The cancel may have been lost with a link."""
    gateway = split()
    gateway.running()
    gateway.owner.cancel("r")
    assert gateway.emits("D", run(1, 11)) == cancels("D")


# ---- deaths


def test_a_decode_death_resumes_with_prompt_plus_emitted_tokens() -> None:
    """first_index counts on; what decode had not sent is computed again."""
    gateway = split(decode("D2"))
    gateway.running()
    gateway.emits("P", run(0, 10))
    gateway.emits("D", run(1, 11), run(3, 13))
    again = RequestKey("r", 2)
    resumed = gateway.dies("D")
    assert reserve(again, num=14, to="D2") in resumed
    (_, admit), *_ = told(gateway.reserved("D2", again), m.Admit)
    assert admit.prompt.token_ids() == [1, 1, 1, 1, 10, 11]
    assert (admit.first_index, admit.num_tokens) == (2, 6)
    assert admit.sampling.max_tokens == 10


def test_a_prefill_death_places_the_request_again() -> None:
    """Decode's reservation goes back first; the dead worker's own cancel goes nowhere."""
    gateway = split(prefill("P2"))
    gateway.running()
    again = RequestKey("r", 2)
    assert gateway.dies("P") == [*cancels("P", "D"), reserve(again, by="P2")]


def test_a_prefill_death_does_not_disturb_who_decodes() -> None:
    """Decode has all of the KV, and everything prefill sent has arrived."""
    gateway = split()
    gateway.running()
    gateway.emits("P", run(0, 10))
    gateway.emits("D", run(1, 11))
    assert gateway.dies("P") == []
    assert emitted(gateway.emits("D", run(2, 12))) == [12]
    assert emitted(gateway.emits("D", run(3, 13, finish=STOP))) == [13]


def test_a_prefill_death_before_its_token_came_is_a_death() -> None:
    """Decode runs, but token 0 is lost: only another attempt can bring it."""
    gateway = split(prefill("P2"))
    gateway.running()
    gateway.emits("D", run(1, 11))
    assert reserve(RequestKey("r", 2), by="P2") in gateway.dies("P")


def test_a_prefill_worker_that_has_handed_over_carries_no_load() -> None:
    """The next prompt goes to it, however long decode goes on."""
    gateway = split(prefill("P2"))
    gateway.running()
    gateway.emits("P", run(0, 10))
    gateway.emits("D", run(1, 11))
    gateway.submit("s")
    gateway.submit("t")
    found = [to.prefill for _, to in told(gateway.submit("u"), m.Reserve)]
    assert found == ["P2"]
    assert gateway.owner.cancel("r") == cancels("D")


def test_more_than_three_deaths_fail_with_503() -> None:
    """A request that kills its workers must not take all of them along."""
    gateway = split(*(decode(f"D{i}") for i in range(2, 6)))
    gateway.submit()
    for name in ("D", "D2", "D3"):
        assert told(gateway.dies(name), m.Reserve)
    ended = gateway.dies("D4")
    assert error(ended).status == 503
    assert "D4 died" in error(ended).message
    assert gateway.owner.idle


def test_a_worker_that_leaves_is_no_death() -> None:
    """A long answer outlives any number of restarts in good order."""
    gateway = Gateway(prefill(), *(decode(f"D{number}") for number in range(8)))
    (placed,) = receivers(gateway.submit(), m.Reserve)
    for attempt in range(1, 8):
        gateway.reserved(placed, RequestKey("r", attempt))
        gateway.admitted(request=RequestKey("r", attempt))
        (placed,) = receivers(gateway.leaves(placed), m.Reserve)
    assert gateway.owner.num_requests == 1


def test_a_partner_that_turns_out_to_have_left_was_no_death() -> None:
    """The other end of the hand-off saw the connection close before the gateway got the word."""
    gateway = split(*(decode(f"D{number}") for number in range(2, 8)))
    gateway.running()
    placed, key = "D", R
    for attempt in range(2, 7):
        told_of = gateway.failed("P", 503, key)
        (next_one,) = receivers(told_of, m.Reserve)
        gateway.leaves(placed)
        placed, key = next_one, RequestKey("r", attempt)
        gateway.reserved(placed, key)
        gateway.admitted(request=key)
    assert gateway.owner.num_requests == 1


def test_one_death_counts_once_however_many_tell_of_it() -> None:
    """Prefill sees it first: the next attempt is on the dead worker again when its news comes."""
    gateway = split()
    gateway.submit()
    for attempt in range(1, 4):
        gateway.failed("P", 503, RequestKey("r", 2 * attempt - 1))
        gateway.membership.leave("D", "1")
        gateway.joins(decode(f"D{attempt}"))
        gateway.membership.leave(f"D{attempt}", "1")
        gateway.membership.join(decode(), {"protocol": str(m.PROTOCOL_VERSION)})
        assert told(gateway.owner.worker_lost("D"), m.Reserve)
    assert error(gateway.failed("P", 503, RequestKey("r", 7))).status == 503


def test_one_death_counts_once_whoever_else_dies_meanwhile() -> None:
    """Prefill's word, an encoder's death, then the news that prefill spoke of."""
    gateway = split(encode("E2"))
    gateway.submit()
    gateway.failed("P", 503)
    assert gateway.dies("E2") == []
    gateway.joins(decode("D2"))
    assert told(gateway.dies("D"), m.Reserve)
    for attempt in (3, 4):
        assert told(gateway.failed("P", 503, RequestKey("r", attempt)), m.Reserve)
    assert error(gateway.failed("P", 503, RequestKey("r", 5))).status == 503


def test_the_partners_word_counts_when_the_gateway_never_sees_a_death() -> None:
    """Prefill and decode cannot reach each other, and both live: it must end."""
    gateway = split()
    gateway.submit()
    for attempt in range(1, 4):
        assert told(gateway.failed("P", 503, RequestKey("r", attempt)), m.Reserve)
    assert error(gateway.failed("D", 503, RequestKey("r", 4))).status == 503


def test_two_that_cannot_reach_each_other_do_not_get_the_request_again() -> None:
    """Both live, and one of them has the longer prefix: nobody can tell the gateway of the link."""
    gateway = split(decode("D2"), root_of=root_of)
    gateway.running(text=40)
    assert receivers(gateway.failed("P", 503), m.Reserve) == ["D2"]


def test_two_that_cannot_reach_each_other_are_tried_again_where_there_is_nobody_else() -> None:
    gateway = split()
    gateway.running(max_tokens=10)
    assert receivers(gateway.failed("P", 503), m.Reserve) == ["D"]


def test_preemption_places_the_request_again_without_counting_as_a_death() -> None:
    """A worker gave its blocks to an older request, any number of times."""
    gateway = split()
    gateway.running()
    for attempt in range(1, 8):
        key, again = RequestKey("r", attempt), RequestKey("r", attempt + 1)
        placed = gateway.failed("D", 429, key)
        assert receivers(placed, m.Cancel) == ["P"]
        assert reserve(again) in placed


def test_a_failure_that_is_nobodys_death_ends_the_request() -> None:
    """With the worker's status and words."""
    gateway = split()
    gateway.running()
    ended = gateway.failed("P", 500)
    assert (error(ended).status, error(ended).message) == (500, "why")
    assert "D" in receivers(ended, m.Cancel)


def test_the_death_of_a_worker_without_this_request_changes_nothing() -> None:
    """Others are alive and at work."""
    gateway = split(prefill("P2"))
    gateway.running()
    assert gateway.dies("P2") == []


# ---- repeats, strays and latecomers


def test_a_repeated_layout_changes_nothing() -> None:
    """Least of all does it drop the item."""
    gateway = split()
    gateway.submit(items=1)
    gateway.laid_out()
    assert gateway.laid_out() == []
    assert gateway.laid_out("stranger") == []


def test_a_layout_that_nobody_waits_for_is_dropped_at_its_encoder() -> None:
    """A stale attempt, an ended request, an item there never was."""
    gateway = split()
    gateway.submit(items=1)
    for index, attempt in ((0, 2), (1, 1), (-1, 1)):
        key = ItemKey("r", index, attempt)
        dropped = [Tell("E", m.DropItem(item=key))]
        assert gateway.laid_out(index=index, attempt=attempt) == dropped
    gateway.owner.cancel("r")
    assert gateway.laid_out() == [Tell("E", m.DropItem(item=ItemKey("r", 0, 1)))]


def test_what_a_worker_holds_for_an_ended_attempt_is_cancelled() -> None:
    """Its answer was under way when the request was withdrawn."""
    gateway = split(decode("D2"))
    gateway.submit()
    gateway.dies("D")
    assert gateway.reserved() == cancels("D")
    assert gateway.admitted() == cancels("P")


def test_a_repeated_answer_changes_nothing() -> None:
    """Reserved and Admitted again, a refusal or a failure of an earlier attempt."""
    gateway = split()
    gateway.submit()
    gateway.refused("D")
    again = RequestKey("r", 2)
    assert gateway.refused("D") == []
    gateway.owner.room()
    gateway.reserved(request=again)
    assert gateway.reserved(request=again) == []
    gateway.admitted(request=again)
    assert gateway.admitted(request=again) == []
    assert gateway.failed("P", 500) == []
    assert gateway.owner.num_requests == 1


def test_only_the_workers_of_an_attempt_speak_for_it() -> None:
    """Whoever else says it is refused or failed has no part in it."""
    gateway = split()
    gateway.submit()
    assert gateway.refused("stranger") == []
    assert gateway.failed("stranger", 500) == []
    assert gateway.owner.num_requests == 1


def test_what_is_said_between_two_attempts_is_about_neither() -> None:
    """The next one has not been placed."""
    gateway = split()
    gateway.submit()
    gateway.refused("D")
    unplaced = RequestKey("r", 2)
    assert gateway.refused("D", unplaced) == []
    assert gateway.failed("D", 500, unplaced) == []
    assert gateway.emits("D", run(0, 10, attempt=2)) == cancels("D", request=unplaced)
