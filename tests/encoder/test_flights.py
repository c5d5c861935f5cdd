"""Equal items share one way, whoever of them leaves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from epd.encoder.flights import Flights
from tests.encoder.bench import key

Ways = Flights[str, str, str]


def test_the_first_of_a_key_leads_and_the_others_follow() -> None:
    flights: Ways = Flights()
    assert flights.join(key(0), "k", "zero").leader == key(0)
    assert flights.join(key(1), "k", "one").leader == key(0)
    assert flights.join(key(2), "other", "two").leader == key(2)
    assert flights.num_followers == 1
    flights.check()


def test_a_flight_goes_on_under_its_name_without_its_leader() -> None:
    flights: Ways = Flights()
    flights.join(key(0), "k", "zero")
    flights.join(key(1), "k", "one")
    assert flights.leave(key(0)) is None
    flight = flights.led_by(key(0))
    assert flight is not None
    assert list(flight.members) == [key(1)]
    assert flights.leave(key(1)) is flight
    assert flights.led_by(key(0)) is None
    flights.check()


def test_what_items_came_with_is_kept_until_the_layout_is_known() -> None:
    flights: Ways = Flights()
    flight = flights.join(key(0), "k", "zero")
    flights.join(key(1), "k", "one")
    assert flight.members == {key(0): "zero", key(1): "one"}
    assert flights.prepared(flight, "layout") == (key(0), key(1))
    flights.join(key(2), "k", "two")
    assert flight.members == {key(0): None, key(1): None, key(2): None}


def test_an_end_frees_the_key_and_its_items() -> None:
    flights: Ways = Flights()
    flights.join(key(0), "k", "zero")
    flights.join(key(1), "k", "one")
    ended = flights.end(key(0))
    assert ended is not None
    assert list(ended.members) == [key(0), key(1)]
    assert flights.end(key(0)) is None
    assert flights.of(key(1)) is None
    assert flights.join(key(1), "k", "again").leader == key(1)
    flights.check()


@given(st.lists(st.tuples(st.sampled_from(["join", "leave", "end"]), st.integers(0, 5))))
def test_items_and_flights_agree_whatever_happens(calls: list[tuple[str, int]]) -> None:
    flights: Ways = Flights()
    for call, index in calls:
        if call == "join" and flights.of(key(index)) is None:
            if flights.led_by(key(index)) is None:  # a dropped item never comes again
                flights.join(key(index), "ab"[index % 2], "")
        elif call == "leave":
            flights.leave(key(index))
        elif call == "end":
            flights.end(key(index))
        flights.check()
