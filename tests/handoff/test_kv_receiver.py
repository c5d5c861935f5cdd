"""The decode side of P->D: pulls within a window, starts when everything is here, leaks nothing."""

from __future__ import annotations

import pytest

from epd.errors import Overloaded
from epd.handoff import EndChoice, Free, KvReceiver, Send, StartDecode
from epd.types import RequestKey
from epd.wire.messages import HandedOver, PeerFailed, RequestFailed, StopChoice
from tests.handoff.samples import AGAIN, OTHER, R, chunk, hand_off, kv_ready, pull_kv, sent

LAYERS = 2
BROKEN = PeerFailed(request=R)
STARTED = [Send("prefill", HandedOver(request=R)), StartDecode(hand_off(4))]


def receiver(*, window: int = 100, cached: int = 0) -> KvReceiver:
    """It holds a reservation for 4 tokens of prompt and some to come."""
    kv = KvReceiver(LAYERS, window)
    kv.reserved("gateway", R, "prefill", 6, cached)
    return kv


def land(kv: KvReceiver, first: int, num: int, *, layer: int = 0, layers: int = LAYERS) -> bool:
    """A chunk from prefill."""
    return kv.landed("prefill", chunk(first, num, layer=layer, layers=layers))


def started(kv: KvReceiver) -> KvReceiver:
    """All of it has come."""
    kv.ready("prefill", kv_ready(4))
    assert land(kv, 0, 4)
    assert kv.settled(R) == []
    assert kv.handed_off("prefill", hand_off(4)) == STARTED
    return kv


def failed(status: int, reason: str, code: str) -> RequestFailed:
    """What the gateway hears."""
    return RequestFailed(request=R, status=status, code=code, reason=reason)


# ---- pulls


def test_kv_is_pulled_as_it_is_offered() -> None:
    """Every token once, however often it is offered."""
    kv = receiver()
    assert kv.ready("prefill", kv_ready(3)) == [Send("prefill", pull_kv(0, 3))]
    assert kv.ready("prefill", kv_ready(3)) == []
    assert kv.ready("prefill", kv_ready(2)) == []
    assert kv.ready("prefill", kv_ready(4)) == [Send("prefill", pull_kv(3, 1))]


def test_no_more_is_asked_for_than_the_window_holds() -> None:
    """What lands makes room, layer by layer."""
    kv = receiver(window=2)
    assert kv.ready("prefill", kv_ready(4)) == [Send("prefill", pull_kv(0, 2))]
    assert land(kv, 0, 2, layer=0, layers=1)
    assert kv.settled(R) == [Send("prefill", pull_kv(2, 1))]
    assert land(kv, 0, 2, layer=1, layers=1)
    assert kv.settled(R) == [Send("prefill", pull_kv(3, 1))]


def test_cached_tokens_do_not_travel() -> None:
    """Of the window only what is asked for counts; decode starts when the rest is here."""
    kv = receiver(window=1, cached=2)
    assert kv.ready("prefill", kv_ready(1)) == []
    assert kv.ready("prefill", kv_ready(4)) == [Send("prefill", pull_kv(2, 1))]
    assert land(kv, 2, 1)
    assert kv.settled(R) == [Send("prefill", pull_kv(3, 1))]
    assert kv.handed_off("prefill", hand_off(4)) == []
    assert land(kv, 3, 1)
    assert kv.settled(R) == STARTED


def test_a_prompt_that_is_cached_whole_starts_with_its_state() -> None:
    """Nothing is pulled at all."""
    kv = receiver(cached=4)
    assert kv.ready("prefill", kv_ready(4)) == []
    assert kv.handed_off("prefill", hand_off(4)) == STARTED


def test_chunks_over_cached_tokens_are_dropped() -> None:
    """They were not asked for, and those pages may be shared."""
    kv = receiver(cached=2)
    kv.ready("prefill", kv_ready(4))
    assert not land(kv, 1, 2)
    assert land(kv, 2, 2)


# ---- what lands


def test_chunks_may_come_in_any_order() -> None:
    """Token ranges and layer ranges alike."""
    kv = receiver()
    kv.ready("prefill", kv_ready(4))
    kv.handed_off("prefill", hand_off(4))
    assert land(kv, 2, 2, layer=1, layers=1)
    assert kv.settled(R) == []
    assert land(kv, 0, 2)
    assert kv.settled(R) == []
    assert land(kv, 2, 2, layer=0, layers=1)
    assert kv.settled(R) == STARTED


def test_decode_starts_when_all_that_landed_was_written() -> None:
    """Ranks take their own parts, and say so in any order: the state may be here before them."""
    kv = receiver()
    kv.ready("prefill", kv_ready(4))
    assert land(kv, 0, 2) and land(kv, 2, 2)
    assert kv.handed_off("prefill", hand_off(4)) == []
    assert kv.settled(R) == []
    assert kv.settled(R) == STARTED


def test_a_repeated_chunk_is_dropped() -> None:
    """And is not counted for another that is still missing."""
    kv = receiver()
    kv.ready("prefill", kv_ready(4))
    assert land(kv, 0, 2)
    assert not land(kv, 0, 2)
    kv.handed_off("prefill", hand_off(4))
    assert kv.settled(R) == []


@pytest.mark.parametrize(
    ("first", "num", "layer", "layers"),
    [(0, 3, 0, 2), (1, 1, 0, 2), (2, 2, 0, 2), (1, 2, 1, 1)],
)
def test_a_chunk_that_overlaps_what_has_landed_is_dropped(
    first: int, num: int, layer: int, layers: int
) -> None:
    """Tokens 1 and 2 are here: counting them twice would start decode on missing KV."""
    kv = receiver()
    kv.ready("prefill", kv_ready(4))
    assert land(kv, 1, 2)
    assert not land(kv, first, num, layer=layer, layers=layers)


@pytest.mark.parametrize(
    ("first", "num", "layer", "layers"),
    [(-1, 2, 0, 2), (0, 0, 0, 2), (0, 1, 0, 0), (0, 1, -1, 2), (0, 1, 1, 2), (2, 2, 0, 2)],
)
def test_kv_that_was_not_asked_for_is_dropped(
    first: int, num: int, layer: int, layers: int
) -> None:
    """3 tokens x 2 layers were."""
    kv = receiver()
    kv.ready("prefill", kv_ready(3))
    assert not land(kv, first, num, layer=layer, layers=layers)


def test_kv_of_strangers_is_dropped() -> None:
    """Another worker, an unknown request, an earlier attempt."""
    kv = receiver()
    kv.ready("prefill", kv_ready(4))
    assert not kv.landed("stranger", chunk(0, 4))
    assert not kv.landed("prefill", chunk(0, 4, request=OTHER))
    kv.ended(R)
    kv.reserved("gateway", AGAIN, "prefill", 6, 0)
    assert not land(kv, 0, 4)


def test_a_chunk_after_the_start_is_dropped() -> None:
    """Its pages are being read and written by the engine."""
    kv = started(receiver())
    assert not land(kv, 0, 4)


def test_a_chunk_that_settles_after_the_end_does_nothing() -> None:
    """A bad shape failed the request while it was written."""
    kv = receiver()
    assert kv.settled(OTHER) == []


# ---- the state


def test_the_state_may_come_before_the_last_chunk() -> None:
    """Bulk and control are different lanes."""
    kv = receiver()
    kv.ready("prefill", kv_ready(4))
    assert kv.handed_off("prefill", hand_off(4)) == []
    assert land(kv, 0, 4)
    assert kv.settled(R) == STARTED


def test_the_state_may_come_before_the_last_offer() -> None:
    """Reordered: decode must not start before it has asked for all of the prompt."""
    kv = receiver()
    kv.ready("prefill", kv_ready(2))
    assert land(kv, 0, 2)
    assert kv.settled(R) == []
    assert kv.handed_off("prefill", hand_off(4)) == []
    assert sent(kv.ready("prefill", kv_ready(4)), "prefill") == [pull_kv(2, 2)]
    assert land(kv, 2, 2)
    assert kv.settled(R) == STARTED


def test_a_repeated_state_starts_nothing_twice() -> None:
    """Neither before nor after the start."""
    kv = receiver()
    kv.handed_off("prefill", hand_off(4))
    assert kv.handed_off("prefill", hand_off(4)) == []
    kv.ready("prefill", kv_ready(4))
    assert land(kv, 0, 4)
    assert kv.settled(R) == STARTED
    assert kv.handed_off("prefill", hand_off(4)) == []
    assert kv.settled(R) == []


@pytest.mark.parametrize(("num_prompt", "num_choices"), [(0, 1), (7, 1), (4, 0)])
def test_a_state_that_cannot_be_ends_the_attempt(num_prompt: int, num_choices: int) -> None:
    """No prompt, more than is reserved, or no sampled token."""
    kv = receiver()
    ended = kv.handed_off("prefill", hand_off(num_prompt, choices=((0, 7),) * num_choices))
    assert ended == [
        Send("gateway", failed(500, "prefill sent a bad state", "internal_error")),
        Send("prefill", BROKEN),
        Free(R),
    ]


def test_an_offer_beyond_the_reservation_ends_the_attempt() -> None:
    """There are no pages for it."""
    kv = receiver()
    ended = kv.ready("prefill", kv_ready(7))
    assert sent(ended, "gateway") == [
        failed(500, "prefill offered too much KV", "internal_error"),
    ]
    assert kv.num_requests == 0


@pytest.mark.parametrize("peer", ["prefill", "stranger"])
def test_who_offers_to_nobody_is_told(peer: str) -> None:
    """Prefill must not keep KV for a request that ended here, or was never its own."""
    kv = receiver()
    if peer == "prefill":
        kv.ended(R)
    assert kv.ready(peer, kv_ready(4)) == [Send(peer, BROKEN)]
    assert kv.handed_off(peer, hand_off(4)) == [Send(peer, BROKEN)]


def test_a_late_offer_leaves_a_running_request_alone() -> None:
    """A repeat, after prefill has let go."""
    kv = started(receiver())
    assert kv.ready("prefill", kv_ready(4)) == []


# ---- ends


def test_a_cancel_before_its_reserve_refuses_the_late_reserve() -> None:
    """Nobody would ever give those blocks back."""
    kv = KvReceiver(LAYERS, 100)
    assert kv.ended(R) == []
    assert kv.refuses(R)
    assert not kv.refuses(AGAIN)


def test_a_repeated_reserve_is_refused() -> None:
    """It is held already."""
    assert receiver().refuses(R)


def test_a_repeated_end_frees_nothing_twice() -> None:
    """Blocks may belong to another by now."""
    kv = receiver()
    assert kv.ended(R) == [Free(R)]
    assert kv.ended(R) == []
    assert kv.peer_failed("prefill", R) == []
    assert kv.failed(R, Overloaded("full")) == []


def test_prefill_gave_up_and_has_told_the_gateway() -> None:
    """Nothing is said twice."""
    assert receiver().peer_failed("prefill", R) == [Free(R)]


def test_a_running_request_needs_no_prefill() -> None:
    """Neither its word nor its life."""
    kv = started(receiver())
    assert kv.peer_failed("prefill", R) == []
    assert kv.peer_lost("prefill") == []
    assert kv.num_requests == 1


def test_only_its_own_prefill_can_end_it() -> None:
    """A stranger's message, a stranger's death."""
    kv = receiver()
    assert kv.peer_failed("stranger", R) == []
    assert kv.peer_lost("stranger") == []


@pytest.mark.parametrize("point", ["reserved", "asked", "landed", "state"])
def test_death_of_prefill_ends_the_attempt_at_each_point(point: str) -> None:
    """Until decode runs; what it still owed will not come."""
    kv = receiver()
    if point != "reserved":
        kv.ready("prefill", kv_ready(4))
    if point in ("landed", "state"):
        assert land(kv, 0, 2)
    if point == "state":
        kv.handed_off("prefill", hand_off(4))
    ended = kv.peer_lost("prefill")
    assert sent(ended, "gateway") == [failed(503, "prefill died", "unavailable")]
    assert ended[-1] == Free(R)


def test_preemption_tells_the_gateway_and_not_prefill() -> None:
    """Prefill was done with it."""
    kv = started(receiver())
    assert kv.failed(R, Overloaded("no KV block is left")) == [
        Send("gateway", failed(429, "no KV block is left", "overloaded")),
        Free(R),
    ]


def test_a_dead_gateway_ends_its_leases() -> None:
    """Running or not; another gateway's requests go on."""
    kv = started(receiver())
    kv.reserved("gateway", AGAIN, "prefill", 6, 0)
    kv.reserved("other gateway", OTHER, "prefill", 6, 0)
    assert kv.gateway_lost("gateway") == [Free(R), Free(AGAIN)]
    assert kv.gateway_of(OTHER) == "other gateway"


def test_tokens_of_an_ended_request_have_no_gateway() -> None:
    """The engine's step may have been running when the cancel came."""
    kv = receiver()
    assert gateways(kv, R, OTHER) == ["gateway", None]
    kv.ended(R)
    assert gateways(kv, R) == [None]


def gateways(kv: KvReceiver, *requests: RequestKey) -> list[str | None]:
    """Whom their tokens go to."""
    return [kv.gateway_of(request) for request in requests]


def test_a_state_shorter_than_what_is_cached_ends_the_attempt() -> None:
    """One of the two has counted wrong."""
    kv = receiver(cached=4)
    assert kv.handed_off("prefill", hand_off(3))[0] == Send(
        "gateway", failed(500, "prefill sent a bad state", "internal_error")
    )


# ---- choices


def test_a_choice_that_was_stopped_before_its_state_came_never_starts() -> None:
    """The gateway saw a stop string in its first token."""
    kv = receiver(cached=4)
    assert kv.stop_choice(StopChoice(request=R, choice=1)) == []
    state = hand_off(4, choices=((0, 7), (1, 8), (2, 9)))
    assert kv.handed_off("prefill", state) == [
        Send("prefill", HandedOver(request=R)),
        StartDecode(hand_off(4, choices=((0, 7), (2, 9)))),
    ]


def test_a_choice_that_runs_is_stopped_at_once() -> None:
    kv = started(receiver())
    assert kv.stop_choice(StopChoice(request=R, choice=0)) == [EndChoice(R, 0)]


def test_a_request_whose_choices_were_all_stopped_ends_instead_of_starting() -> None:
    """Prefill is told that it is done, too."""
    kv = receiver(cached=4)
    kv.stop_choice(StopChoice(request=R, choice=0))
    assert kv.handed_off("prefill", hand_off(4)) == [
        Send("prefill", HandedOver(request=R)),
        Free(R),
    ]
    assert kv.num_requests == 0


def test_a_stop_for_a_request_that_is_not_here_is_ignored() -> None:
    assert receiver().stop_choice(StopChoice(request=OTHER, choice=0)) == []
