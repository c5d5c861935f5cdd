"""The queue between the two threads."""

from __future__ import annotations

from threading import Thread

from epd.wire.inbox import Inbox


def test_take_gives_all_there_is_in_order() -> None:
    inbox = Inbox()
    assert all(inbox.put(number) for number in range(5))
    assert inbox.take(wait=False) == [0, 1, 2, 3, 4]
    assert inbox.take(wait=False) == []


def test_a_full_inbox_refuses_until_it_was_emptied() -> None:
    inbox = Inbox(capacity=2)
    assert [inbox.put(number) for number in range(3)] == [True, True, False]
    assert inbox.full
    assert inbox.take(wait=True) == [0, 1]
    assert not inbox.full and inbox.put(3)


def test_a_wait_ends_when_something_comes() -> None:
    inbox = Inbox()
    producer = Thread(target=inbox.put, args=("event",))
    producer.start()
    assert inbox.take(wait=True, timeout=20) == ["event"]
    producer.join()


def test_a_wake_ends_the_wait_that_is_or_the_next_one_and_no_more() -> None:
    inbox = Inbox()
    inbox.wake()
    assert inbox.take(wait=True, timeout=20) == []
    assert inbox.take(wait=True, timeout=0.001) == [], "the wake was used up"


def test_nothing_is_lost_between_many_producers_and_one_consumer() -> None:
    inbox = Inbox(capacity=7)

    def produce(first: int) -> None:
        for number in range(first, first + 200):
            while not inbox.put(number):
                pass

    producers = [Thread(target=produce, args=(first,)) for first in (0, 1000, 2000)]
    for producer in producers:
        producer.start()
    got: list[object] = []
    while len(got) < 600:
        got += inbox.take(wait=True, timeout=20)
    for producer in producers:
        producer.join()
    assert len(set(got)) == 600
