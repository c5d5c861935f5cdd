"""The table of workers: who may join, who replaces whom, who serves what."""

from __future__ import annotations

from dataclasses import replace

import pytest

from epd.cluster import Membership
from epd.cluster.membership import Joined, Rejected
from epd.types import Member, Modality, Stage
from epd.wire.messages import PROTOCOL_VERSION
from tests.cluster.samples import decode, encode, fused, member, prefill

OURS = {"model": "m1", "protocol": str(PROTOCOL_VERSION)}


def table(*members: Member) -> Membership:
    """They have joined, in this order."""
    membership = Membership({})
    for one in members:
        joined = membership.join(one, {"protocol": str(PROTOCOL_VERSION)})
        assert isinstance(joined, Joined)
    return membership


def test_a_worker_joins_once_however_often_it_registers() -> None:
    """Register is repeated until it is answered."""
    membership = Membership(OURS)
    assert membership.join(prefill(), OURS) == Joined(prefill(), None)
    assert membership.join(prefill(), OURS) == Joined(prefill(), None)
    assert membership.members == (prefill(),)


def test_a_restarted_worker_replaces_its_predecessor() -> None:
    """The caller is told whom, for what that one held is gone."""
    membership = table(prefill())
    again = replace(prefill(), incarnation="2")
    assert membership.join(again, OURS) == Joined(again, prefill())
    assert membership.members == (again,)


def test_a_worker_that_took_its_gateway_for_dead_counts_as_restarted() -> None:
    """It lives, but has given back what it held: once per time, and not for a new gateway."""
    membership = Membership(OURS)
    membership.join(prefill(), OURS, lost=3)
    assert membership.join(prefill(), OURS, lost=3) == Joined(prefill(), None)
    assert membership.join(prefill(), OURS, lost=4) == Joined(prefill(), prefill())
    assert membership.join(prefill(), OURS, lost=4) == Joined(prefill(), None)
    membership.leave("P", prefill().incarnation)
    assert membership.join(prefill(), OURS, lost=5) == Joined(prefill(), None)


def test_another_protocol_is_rejected() -> None:
    """With words that name both sides' versions."""
    rejected = Membership(OURS).join(prefill(), {**OURS, "protocol": "0"})
    assert rejected == Rejected(f"protocol: gateway {PROTOCOL_VERSION}, P 0")


def test_another_model_is_rejected_and_named() -> None:
    """A worker with other weights must not answer for these."""
    membership = Membership(OURS)
    assert membership.join(prefill(), {**OURS, "model": "m2"}) == Rejected(
        "model: gateway m1, P m2"
    )
    assert membership.members == ()


def test_what_only_the_worker_says_of_itself_is_not_compared() -> None:
    """It makes its pool."""
    assert isinstance(Membership(OURS).join(prefill(), {**OURS, "dtype": "x"}), Joined)


@pytest.mark.parametrize("theirs", [{}, {"weights": "w3"}])
def test_what_the_operator_does_not_allow_is_rejected_and_named(theirs: dict[str, str]) -> None:
    """Also where the worker does not say it."""
    membership = Membership(OURS, {"weights": ("w1", "w2")})
    for name, weights in (("P", "w1"), ("P2", "w2")):
        assert isinstance(membership.join(prefill(name), {**OURS, "weights": weights}), Joined)
    rejected = membership.join(prefill("P3"), {**OURS, **theirs})
    said = theirs.get("weights")
    assert rejected == Rejected(f"weights: gateway allows w1, w2, P3 {said}")


def test_a_draining_worker_takes_nothing_new() -> None:
    membership = table(prefill(), prefill("P2"), decode())
    assert membership.drain("P")
    assert not membership.drain("P") and not membership.drain("nobody")
    assert membership.serving(Stage.PREFILL) == [prefill("P2")]
    assert membership.draining == [prefill()]
    assert membership.members == (prefill(), prefill("P2"), decode())


def test_nobody_is_complete_with_draining_workers_alone() -> None:
    membership = table(prefill(), decode())
    membership.drain("D")
    assert not membership.complete


def test_work_that_is_bound_to_a_pool_goes_to_its_draining_workers_where_no_other_is_left() -> None:
    """A request that has begun there is not to fail because its pool goes."""
    membership = table(prefill(pool="old"), prefill("P2", pool="old"), prefill("N", pool="new"))
    membership.drain("P")
    assert membership.serving(Stage.PREFILL, pools={"old"}) == [prefill("P2", pool="old")]
    membership.drain("P2")
    names = [member.name for member in membership.serving(Stage.PREFILL, pools={"old"})]
    assert names == ["P", "P2"]
    assert membership.serving(Stage.PREFILL) == [prefill("N", pool="new")]


def test_a_successor_does_not_drain_because_its_predecessor_did() -> None:
    membership = table(prefill())
    membership.drain("P")
    again = replace(prefill(), incarnation="2")
    membership.join(again, {"protocol": str(PROTOCOL_VERSION)})
    assert membership.serving(Stage.PREFILL) == [again]


def test_news_of_an_earlier_incarnation_changes_nothing() -> None:
    """The connection of the predecessor breaks after the successor has joined."""
    membership = table(prefill())
    assert membership.leave("P", "0") is None
    assert membership.leave("stranger", "1") is None
    assert membership.leave("P", "1") == prefill()
    assert membership.leave("P", "1") is None
    assert membership.get("P") is None


def test_workers_are_found_by_stage_and_modality() -> None:
    """A fused one serves both of its stages."""
    audio = member("A", Stage.ENCODE, modalities=(Modality.AUDIO,))
    membership = table(encode(), audio, fused(), decode())
    assert membership.serving(Stage.ENCODE) == [encode(), audio]
    assert membership.serving(Stage.ENCODE, [Modality.AUDIO]) == [audio]
    assert membership.serving(Stage.ENCODE, [Modality.AUDIO, Modality.IMAGE]) == []
    assert membership.serving(Stage.PREFILL) == [fused()]
    assert membership.serving(Stage.DECODE) == [fused(), decode()]


@pytest.mark.parametrize(
    ("members", "complete"),
    [
        ([], False),
        ([prefill()], False),
        ([decode()], False),
        ([prefill(), decode()], True),
        ([fused()], True),
        ([prefill(pool="a"), decode(pool="b")], False),
        ([prefill(pool="a"), decode(pool="b"), decode("D2", pool="a")], True),
    ],
)
def test_complete_means_that_some_pool_can_answer_text(
    members: list[Member], complete: bool
) -> None:
    """Prefill and decode workers of different pools cannot work together."""
    assert table(*members).complete is complete


def test_kv_goes_to_decode_workers_of_the_same_pool() -> None:
    """A fused worker keeps its requests and takes nobody else's."""
    membership = table(prefill(), decode(), decode("D2", pool="b"), fused(), decode("D3"))
    assert membership.decoders(prefill()) == [decode(), decode("D3")]
    assert membership.decoders(fused()) == [fused()]
