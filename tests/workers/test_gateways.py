"""The gateways of a worker: met at many addresses, known by name, and each has to release it."""

from __future__ import annotations

from epd.workers.gateways import REGISTER_EVERY_S, Gateways

A, B = "tcp://10.0.0.1:7400", "tcp://10.0.0.2:7400"


def welcomed(*pairs: tuple[str, str]) -> Gateways:
    gateways = Gateways()
    for name, via in pairs:
        gateways.welcome(name, "1", via, now=0.0)
    return gateways


def test_only_addresses_that_have_not_answered_are_asked() -> None:
    gateways = Gateways()
    assert gateways.to_ask([A, B]) == [A, B]
    gateways.welcome("a", "1", A, now=0.0)
    assert gateways.to_ask([A, B]) == [B]


def test_who_has_not_answered_is_asked_again_but_not_all_the_time() -> None:
    gateways = Gateways()
    assert gateways.due(0.0)
    assert not gateways.due(REGISTER_EVERY_S / 2)
    assert gateways.due(REGISTER_EVERY_S)


def test_one_gateway_at_two_addresses_is_one_gateway() -> None:
    """A name may have an address of either kind of IP. The second link to it is not needed."""
    gateways = welcomed(("a", A))
    again = gateways.welcome("a", "1", B, now=0.0)
    assert again is not None and again.spare
    repeated = gateways.welcome("a", "1", A, now=0.0)
    assert repeated is not None and not repeated.spare
    assert len(gateways.known) == 1 and gateways.to_ask([A, B]) == []


def test_a_restarted_gateway_replaces_its_predecessor_whose_lease_ends() -> None:
    gateways = welcomed(("a", A))
    again = gateways.welcome("a", "2", A, now=1.0)
    assert again is not None and again.lost is not None and again.lost.incarnation == "1"
    assert gateways.times_lost == {"a": 1}
    assert gateways.get("a", "1") is None and gateways.get("a", "2") is not None


def test_two_gateways_of_one_name_are_not_mixed_up() -> None:
    """The second is left alone as long as the first one lives."""
    gateways = welcomed(("a", A))
    assert gateways.welcome("a", "2", B, now=0.0) is None
    assert gateways.get("a", "1") is not None
    gateways.lost("a", "1")
    assert gateways.welcome("a", "2", B, now=0.0) is not None


def test_news_of_an_earlier_incarnation_ends_nothing() -> None:
    gateways = welcomed(("a", A))
    assert gateways.lost("a", "0") is None and gateways.lost("b", "1") is None
    assert gateways.times_lost == {}


def test_a_silent_gateway_loses_its_lease_and_the_other_keeps_its_own() -> None:
    gateways = welcomed(("a", A), ("b", B))
    assert [g.name for g in gateways.silent({"b": 4.0}, now=5.5, most_s=5.0)] == ["a"]


def test_an_address_that_a_name_lost_is_given_up_unless_somebody_lives_there() -> None:
    """Who lives there has a lease, which ends like any other."""
    gateways = Gateways()
    gateways.to_ask([A, B])
    gateways.welcome("a", "1", A, now=0.0)
    assert gateways.vanished([A, B]) == []
    assert gateways.vanished([]) == [B]
    assert gateways.vanished([]) == []
    assert gateways.get("a") is not None


def test_a_worker_is_drained_when_every_gateway_has_released_it() -> None:
    gateways = welcomed(("a", A), ("b", B))
    assert gateways.to_tell() == [] and not gateways.drained
    gateways.draining = True
    for gateway in gateways.known:
        assert not gateways.drained and gateway in gateways.to_tell()
        gateway.released = True
    assert gateways.drained


def test_a_gateway_that_dies_needs_nobody_any_more() -> None:
    gateways = welcomed(("a", A))
    gateways.draining = True
    gateways.lost("a", "1")
    assert gateways.drained
