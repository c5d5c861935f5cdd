"""Which workers get a request: enough room, one pool, the least load."""

from __future__ import annotations

import pytest

from epd.cluster import Placement
from epd.cluster.placement import Placed
from epd.errors import Unavailable
from epd.types import Member, Modality
from tests.cluster.samples import decode, encode, fused, prefill
from tests.cluster.test_membership import table

IMAGE = (Modality.IMAGE,)
AUDIO = (Modality.AUDIO,)


def placement(*members: Member) -> Placement:
    """Over a table of these."""
    return Placement(table(*members))


def test_the_least_loaded_worker_is_chosen() -> None:
    """Load is what was sent there and has not ended."""
    place = placement(prefill("P1"), prefill("P2"), decode())
    place.began("P1")
    assert place.language(1, set()) == Placed("P2", "D")
    place.began("P2")
    place.began("P2")
    assert place.language(1, set()) == Placed("P1", "D")
    place.ended("P2")
    place.ended("P2")
    assert place.language(1, set()) == Placed("P2", "D")


def test_ties_go_to_the_worker_used_longest_ago() -> None:
    """Short requests one after the other are spread all the same."""
    place = placement(prefill("P1"), prefill("P2"), decode())
    chosen = []
    for _ in range(4):
        placed = place.language(1, set())
        assert placed is not None
        chosen.append(placed.prefill)
        place.began(chosen[-1])
        place.ended(chosen[-1])
    assert chosen == ["P1", "P2", "P1", "P2"]


def test_a_successor_starts_without_its_predecessors_load() -> None:
    """What the dead one had goes elsewhere; ends that come late count for nothing."""
    place = placement(prefill("P1"), prefill("P2"), decode())
    place.began("P1")
    place.gone("P1")
    place.ended("P1")
    place.began("P2")
    assert place.language(1, set()) == Placed("P1", "D")


def test_a_fused_worker_keeps_its_request() -> None:
    """No decode worker is involved."""
    assert placement(fused()).language(1, set()) == Placed("F", None)


def test_a_fused_worker_takes_nobody_elses_request() -> None:
    """It does not answer Reserve: a split prefill worker goes with a decode worker only."""
    place = placement(prefill(), fused())
    for _ in range(3):
        place.began("F")
    assert place.language(1, set()) == Placed("F", None)


def test_a_pair_without_a_link_is_the_last_to_be_chosen() -> None:
    """However much of the prompt it has; a full one that is linked is waited for."""
    place = placement(prefill(), decode("D1"), decode("D2"))
    cut = {frozenset(("P", "D1"))}
    place.expected.add("D1", (b"block",))
    assert place.language(1, set(), blocks=(b"block",)) == Placed("P", "D1")
    assert place.language(1, set(), blocks=(b"block",), apart=cut) == Placed("P", "D2")
    assert place.language(1, {"D2"}, blocks=(b"block",), apart=cut) is None
    place = placement(prefill(), decode("D1"))
    assert place.language(1, set(), apart=cut) == Placed("P", "D1")


# ---- who is missing


def test_no_prefill_worker_is_said_so() -> None:
    """The stage is named."""
    with pytest.raises(Unavailable, match="no prefill worker"):
        placement(decode()).language(1, set())


def test_no_decode_worker_is_said_so() -> None:
    """The stage is named."""
    with pytest.raises(Unavailable, match="no decode worker"):
        placement(prefill()).language(1, set())


def test_no_encode_worker_is_said_so() -> None:
    """The modality is named."""
    with pytest.raises(Unavailable, match="no encode worker serves audio"):
        placement(encode()).encoders.serving(AUDIO)
    with pytest.raises(Unavailable, match="no encode worker serves image"):
        placement(prefill(), decode()).pools([IMAGE])


# ---- pools


def test_pool_mismatch_between_prefill_and_decode_is_not_placed() -> None:
    """KV of one is nothing to the other."""
    with pytest.raises(Unavailable, match="no decode worker"):
        placement(prefill(pool="a"), decode(pool="b")).language(1, set())


def test_a_pool_that_still_grows_is_passed_over() -> None:
    """A rolling upgrade: the new pool's prefill worker is idle and has no decode worker yet."""
    place = placement(prefill("P1", pool="a"), decode(pool="a"), prefill("P2", pool="b"))
    place.began("P1")
    assert place.language(1, set()) == Placed("P1", "D")


def test_a_full_pool_leaves_its_requests_to_another() -> None:
    """Its prefill worker is idle, but its only decode worker has refused."""
    place = placement(
        prefill("P1", pool="a"),
        decode("D1", pool="a"),
        prefill("P2", pool="b"),
        decode("D2", pool="b"),
    )
    place.began("P2")
    assert place.language(1, {"D1"}) == Placed("P2", "D2")


def test_items_and_prompt_stay_in_one_pool() -> None:
    """Rows of one are nothing to the other, however idle it is."""
    place = placement(
        encode("E1", pool="a"),
        encode("E2", pool="b"),
        prefill("P2", pool="b"),
        decode("D2", pool="b"),
        prefill("P3", pool="c"),
        decode("D3", pool="c"),
    )
    assert place.pools([IMAGE]) == {"b"}
    assert place.pools(()) == {"b", "c"}
    assert [member.name for member in place.encoders.serving(IMAGE, {"b"})] == ["E2"]
    assert place.language(1, set(), {"b"}) == Placed("P2", "D2")


def test_stages_that_are_there_but_in_no_common_pool_are_said_so() -> None:
    """Every stage is served, and yet nothing can be."""
    place = placement(encode(pool="a"), prefill(pool="b"), decode(pool="b"))
    with pytest.raises(Unavailable, match="no pool"):
        place.pools([IMAGE])


# ---- modalities

VIDEO = (Modality.VIDEO,)
SOUNDING = (Modality.VIDEO, Modality.AUDIO)


def specialists() -> Placement:
    """One worker for pictures and videos, one for sound, one for all of them."""
    return placement(
        encode("EV", modalities=(Modality.IMAGE, Modality.VIDEO)),
        encode("EA", modalities=AUDIO),
        encode("E3", modalities=(Modality.IMAGE, Modality.VIDEO, Modality.AUDIO)),
        prefill(),
        decode(),
    )


def test_a_video_with_sound_needs_a_worker_that_serves_both() -> None:
    """One worker for pictures and one for sound are not enough: it is one job."""
    apart = placement(encode("EV", modalities=VIDEO), encode("EA", modalities=AUDIO), fused())
    assert apart.pools([VIDEO, AUDIO]) == {""}
    with pytest.raises(Unavailable, match="no encode worker serves video together with audio"):
        apart.pools([VIDEO, SOUNDING])


def test_what_nobody_serves_is_named_in_words() -> None:
    with pytest.raises(Unavailable, match="no encode worker serves time series$"):
        specialists().pools([IMAGE, (Modality.TIME_SERIES,)])


# ---- room


def test_who_refused_is_not_asked_again() -> None:
    """None when nobody is left to ask: then the request waits."""
    place = placement(prefill(), decode("D1"), decode("D2"))
    assert place.language(1, {"D1"}) == Placed("P", "D2")
    assert place.language(1, {"D1", "D2"}) is None
    assert place.language(1, {"P"}) is None


def test_a_request_waits_for_a_worker_that_is_large_enough() -> None:
    """The large one is full: the small one would say "never", and that would be the answer."""
    place = placement(prefill(), decode("large", kv_tokens=50), decode("small", kv_tokens=10))
    place.began("large")
    assert place.language(40, set()) == Placed("P", "large")
    assert place.language(40, {"large"}) is None
    assert place.language(10, {"large"}) == Placed("P", "small")


def test_a_request_that_nobody_has_room_for_is_placed_to_be_refused() -> None:
    """The worker says "never", in its own words."""
    assert placement(fused(kv_tokens=10)).language(11, set()) == Placed("F", None)


def test_prefill_and_decode_must_both_be_large_enough() -> None:
    """A large prefill worker is of no use in a pool of small decode workers."""
    place = placement(
        prefill("P1", pool="a"),
        decode("D1", pool="a", kv_tokens=10),
        prefill("P2", pool="b"),
        decode("D2", pool="b"),
    )
    place.began("P2")
    assert place.language(40, set()) == Placed("P2", "D2")
