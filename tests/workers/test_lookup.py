"""Gateways by name: every address is one, and a name is looked up again and again."""

from __future__ import annotations

import threading

from epd.workers.lookup import Lookup

NAME, FIXED = "tcp://gateways.example:7400", "tcp://10.0.0.9:7400"
A, B = "tcp://10.0.0.1:7400", "tcp://10.0.0.2:7400"


class Names:
    """A name service that answers what it is told to."""

    def __init__(self) -> None:
        self.answer: tuple[str, ...] | None = None
        self.asked: list[str] = []
        self.often = threading.Event()

    def __call__(self, address: str) -> tuple[str, ...]:
        self.asked.append(address)
        if len(self.asked) > 2:
            self.often.set()
        if self.answer is None:
            raise OSError("no such name")
        return self.answer


def test_addresses_are_known_at_once_and_names_when_they_are_looked_up() -> None:
    names = Names()
    lookup = Lookup((NAME, FIXED, "ipc:///run/g.c"), 1.0, resolve=names)
    assert list(lookup.current) == [FIXED, "ipc:///run/g.c"]
    names.answer = (A, B)
    lookup.refresh()
    assert list(lookup.current) == [A, B, FIXED, "ipc:///run/g.c"]
    assert names.asked == [NAME]


def test_addresses_come_and_go_with_the_name() -> None:
    names = Names()
    lookup = Lookup((NAME,), 1.0, resolve=names)
    for answer in ((A,), (A, B), (B,)):
        names.answer = answer
        lookup.refresh()
        assert lookup.current == answer


def test_a_name_service_that_fails_takes_no_gateway_away() -> None:
    names = Names()
    lookup = Lookup((NAME,), 1.0, resolve=names)
    names.answer = (A,)
    lookup.refresh()
    names.answer = None
    lookup.refresh()
    assert lookup.current == (A,)


def test_a_name_is_looked_up_again_and_again() -> None:
    names = Names()
    lookup = Lookup((NAME,), 0.001, resolve=names)
    lookup.start()
    assert names.often.wait(10)
    lookup.close()


def test_without_names_there_is_nothing_to_look_up() -> None:
    names = Names()
    lookup = Lookup((FIXED,), 0.001, resolve=names)
    lookup.start()
    lookup.close()
    assert names.asked == [] and lookup.current == (FIXED,)


def test_localhost_is_a_name_with_an_address() -> None:
    lookup = Lookup(("tcp://localhost:7400",), 1.0)
    lookup.refresh()
    assert "tcp://127.0.0.1:7400" in lookup.current
