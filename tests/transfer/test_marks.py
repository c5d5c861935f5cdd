"""What is read later must not be given back before."""

from __future__ import annotations

import weakref

import torch

from epd.transfer.cuda import EventMark


class Event:
    """At the interface of CUDA's."""

    def __init__(self) -> None:
        self.passed = False

    def query(self) -> bool:
        return self.passed

    def synchronize(self) -> None:
        self.passed = True


def test_a_mark_keeps_what_is_read_until_its_event_has_passed() -> None:
    event, source = Event(), torch.zeros(4)
    gone = weakref.ref(source)
    mark = EventMark(event, source)
    del source
    assert not mark.done() and gone() is not None
    event.passed = True
    assert gone() is not None  # nobody has looked yet
    assert mark.done() and gone() is None


def test_who_waits_for_a_mark_lets_go_too() -> None:
    source = torch.zeros(4)
    gone = weakref.ref(source)
    mark = EventMark(Event(), source)
    del source
    mark.wait()
    assert mark.done() and gone() is None
