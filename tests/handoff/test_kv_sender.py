"""The prefill side of P->D: KV is offered, pulled, and freed when decode has it or nobody will."""

from __future__ import annotations

import pytest

from epd.errors import BadRequest, Unavailable
from epd.handoff import DropSends, EndChoice, Free, Instruction, KvSender, Send, SendKv
from epd.types import RequestKey
from epd.wire.messages import PeerFailed, RequestFailed, StopChoice
from tests.handoff.samples import AGAIN, OTHER, R, hand_off, kv_ready, pull_kv, sent

FREED: list[Instruction] = [DropSends(R), Free(R)]
BROKEN = PeerFailed(request=R)


@pytest.fixture
def sender() -> KvSender:
    """It has admitted a request that goes on at "decode"."""
    sender = KvSender()
    sender.admitted("gateway", R, "decode")
    return sender


def failed(status: int, reason: str, code: str, request: RequestKey = R) -> RequestFailed:
    """What the gateway hears."""
    return RequestFailed(request=request, status=status, code=code, reason=reason)


def test_kv_is_offered_as_it_is_computed(sender: KvSender) -> None:
    """A count that is not higher says nothing new."""
    assert sender.computed(R, 4) == [Send("decode", kv_ready(4))]
    assert sender.computed(R, 4) == []
    assert sender.computed(R, 3) == []
    assert sender.computed(R, 6) == [Send("decode", kv_ready(6))]


def test_a_pull_is_served_from_what_exists(sender: KvSender) -> None:
    """Again, too: only its receiver knows what it has."""
    sender.computed(R, 4)
    assert sender.pull("decode", pull_kv(1, 3)) == [SendKv("decode", R, 1, 3)]
    assert sender.pull("decode", pull_kv(1, 3)) == [SendKv("decode", R, 1, 3)]


@pytest.mark.parametrize(("first", "num"), [(0, 5), (4, 1), (-1, 2), (0, 0), (2, -1)])
def test_a_pull_of_kv_that_does_not_exist_ends_the_attempt(
    sender: KvSender, first: int, num: int
) -> None:
    """Decode's books are wrong: nothing it does with this request can be right."""
    sender.computed(R, 4)
    reason = "decode asked for KV that does not exist"
    assert sender.pull("decode", pull_kv(first, num)) == [
        Send("gateway", failed(500, reason, "internal_error")),
        Send("decode", BROKEN),
        *FREED,
    ]


def test_only_the_named_decode_worker_gets_kv(sender: KvSender) -> None:
    """A stranger is told that it has no business here; the request goes on."""
    sender.computed(R, 4)
    assert sender.pull("stranger", pull_kv(0, 4)) == [Send("stranger", BROKEN)]
    assert sender.landed("stranger", R) == []
    assert sender.peer_failed("stranger", R) == []
    assert sender.num_requests == 1


def test_a_pull_of_an_ended_request_is_answered(sender: KvSender) -> None:
    """Decode must not wait for KV that will never come."""
    sender.ended(R)
    assert sender.pull("decode", pull_kv(0, 1)) == [Send("decode", BROKEN)]


def test_the_state_follows_the_last_chunk(sender: KvSender) -> None:
    """The first token was sampled; blocks stay until decode has everything."""
    assert sender.sampled(hand_off(4)) == [Send("decode", hand_off(4))]
    assert sender.num_requests == 1
    assert sender.landed("decode", R) == FREED
    assert sender.num_requests == 0


def test_a_fused_worker_hands_nothing_over() -> None:
    """No decode worker: no offers, no state; it is freed when it ends."""
    sender = KvSender()
    sender.admitted("gateway", R, None)
    assert sender.computed(R, 4) == []
    assert sender.sampled(hand_off(4)) == []
    assert sender.peer_lost("decode") == []
    assert sender.ended(R) == FREED


def test_a_failure_on_a_fused_worker_is_told_to_the_gateway_alone() -> None:
    """There is no other side."""
    sender = KvSender()
    sender.admitted("gateway", R, None)
    assert sender.failed(R, BadRequest("no")) == [
        Send("gateway", failed(400, "no", "invalid_request")),
        *FREED,
    ]


def test_a_cancel_before_its_admit_refuses_the_late_admit() -> None:
    """Nobody would ever end it again."""
    sender = KvSender()
    assert sender.ended(R) == []
    assert sender.refuses(R)
    assert not sender.refuses(AGAIN)


def test_a_repeated_admit_is_refused(sender: KvSender) -> None:
    """It runs already."""
    assert sender.refuses(R)


def test_a_repeated_end_frees_nothing_twice(sender: KvSender) -> None:
    """Whatever ended it first: blocks may belong to another by now."""
    assert sender.landed("decode", R) == FREED
    assert sender.landed("decode", R) == []
    assert sender.ended(R) == []
    assert sender.peer_failed("decode", R) == []
    assert sender.failed(R, BadRequest("no")) == []
    assert sender.computed(R, 8) == []
    assert sender.sampled(hand_off(8)) == []


def test_decode_gave_up_and_has_told_the_gateway(sender: KvSender) -> None:
    """Nothing is said twice."""
    assert sender.peer_failed("decode", R) == FREED


@pytest.mark.parametrize("point", ["admitted", "computing", "pulled", "sampled"])
def test_death_of_decode_ends_the_attempt_at_each_point(sender: KvSender, point: str) -> None:
    """Until decode has said that it holds everything, only this worker can tell the gateway."""
    if point != "admitted":
        sender.computed(R, 4)
    if point in ("pulled", "sampled"):
        sender.pull("decode", pull_kv(0, 4))
    if point == "sampled":
        sender.sampled(hand_off(4))
    sender.admitted("gateway", OTHER, "decode-2")
    ended = sender.peer_lost("decode")
    assert sent(ended, "gateway") == [failed(503, "decode died", "unavailable")]
    assert ended[-2:] == FREED
    assert not sender.refuses(AGAIN)
    assert sender.num_requests == 1


def test_death_of_decode_after_the_hand_off_is_not_our_business(sender: KvSender) -> None:
    """The gateway sees it itself."""
    sender.landed("decode", R)
    assert sender.peer_lost("decode") == []


def test_a_dead_gateway_ends_its_leases(sender: KvSender) -> None:
    """Another gateway's requests go on."""
    sender.admitted("other gateway", OTHER, "decode")
    assert sender.gateway_lost("gateway") == FREED
    assert sender.gateway_of(OTHER) == "other gateway"


def test_tokens_of_an_ended_request_have_no_gateway(sender: KvSender) -> None:
    """The engine's step may have been running when the cancel came."""
    assert sender.gateway_of(R) == "gateway"
    sender.ended(R)
    assert sender.gateway_of(R) is None


def test_a_failure_names_the_attempt_that_failed(sender: KvSender) -> None:
    """Only its own attempt ends."""
    sender.ended(R)
    sender.admitted("gateway", AGAIN, "decode")
    assert sent(sender.failed(AGAIN, Unavailable("gone")), "gateway") == [
        failed(503, "gone", "unavailable", AGAIN)
    ]


# ---- choices


def test_a_choice_that_was_stopped_is_not_handed_off(sender: KvSender) -> None:
    """Whenever the stop came; the others go on."""
    assert sender.stop_choice(StopChoice(request=R, choice=1)) == []
    state = hand_off(4, choices=((0, 7), (1, 8)))
    assert sender.sampled(state) == [Send("decode", hand_off(4))]


def test_a_request_whose_choices_were_all_stopped_ends_at_prefill(sender: KvSender) -> None:
    """Its gateway stopped them, and gives back what decode holds."""
    sender.stop_choice(StopChoice(request=R, choice=0))
    assert sender.sampled(hand_off(4)) == FREED
    assert sender.num_requests == 0


def test_a_stop_on_a_fused_worker_goes_to_its_engine() -> None:
    """Which knows all choices from the start."""
    sender = KvSender()
    sender.admitted("gateway", R, None)
    assert sender.stop_choice(StopChoice(request=R, choice=1)) == [EndChoice(R, 1)]


def test_a_stop_for_a_request_that_is_not_here_is_ignored(sender: KvSender) -> None:
    assert sender.stop_choice(StopChoice(request=OTHER, choice=0)) == []
