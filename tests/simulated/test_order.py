"""Races are found by what is ordered, whatever happened to come first."""

from __future__ import annotations

from tests.simulated.order import HOST, Order, Use

ROOM = 1


def whole(*, writes: bool) -> list[Use]:
    return [Use(ROOM, 0, 100, writes)]


def test_work_of_one_stream_is_in_order() -> None:
    order = Order()
    order.launch(1, whole(writes=True), "write")
    order.launch(1, whole(writes=False), "read")
    order.launch(1, whole(writes=True), "write again")
    assert not order.faults


def test_a_stream_that_does_not_wait_reads_what_may_not_be_there() -> None:
    order = Order()
    order.launch(1, whole(writes=True), "write")
    order.launch(2, whole(writes=False), "read")
    assert order.faults == ["read and write: no order between streams"]


def test_a_stream_that_waits_reads_what_is_there() -> None:
    order = Order()
    order.launch(1, whole(writes=True), "write")
    order.learn(2, order.clock(1))
    order.launch(2, whole(writes=False), "read")
    assert not order.faults


def test_what_is_written_behind_an_event_is_not_behind_its_waiter() -> None:
    order = Order()
    event = order.clock(1)
    order.launch(1, whole(writes=True), "write")
    order.learn(2, event)
    order.launch(2, whole(writes=False), "read")
    assert order.faults


def test_a_reader_is_not_written_over() -> None:
    order = Order()
    order.launch(1, whole(writes=False), "read")
    order.launch(2, whole(writes=True), "write")
    assert order.faults


def test_two_readers_disturb_nobody() -> None:
    order = Order()
    order.launch(1, whole(writes=False), "one")
    order.launch(2, whole(writes=False), "other")
    assert not order.faults


def test_a_writer_has_to_wait_for_every_reader() -> None:
    order = Order()
    order.launch(1, whole(writes=False), "one")
    order.launch(2, whole(writes=False), "other")
    order.learn(3, order.clock(2))
    order.launch(3, whole(writes=True), "write")
    assert order.faults == ["write and one: no order between streams"]


def test_other_bytes_are_nobodys_business() -> None:
    order = Order()
    order.launch(1, [Use(ROOM, 0, 50, writes=True)], "front")
    order.launch(2, [Use(ROOM, 50, 100, writes=True)], "back")
    order.launch(3, [Use(ROOM + 1, 0, 100, writes=True)], "elsewhere")
    assert not order.faults


def test_a_host_that_waited_orders_what_it_asks_for_next() -> None:
    order = Order()
    order.launch(1, whole(writes=True), "write")
    order.learn(HOST, order.clock(1))
    order.launch(2, whole(writes=False), "read")
    assert not order.faults


def test_waiting_is_passed_on() -> None:
    order = Order()
    order.launch(1, whole(writes=True), "write")
    order.learn(2, order.clock(1))
    order.learn(3, order.clock(2))
    order.launch(3, whole(writes=False), "read")
    assert not order.faults


def test_memory_is_not_given_back_while_another_stream_reads_it() -> None:
    order = Order()
    order.lend(ROOM, 1)
    order.launch(1, whole(writes=True), "write")
    order.learn(2, order.clock(1))
    order.launch(2, whole(writes=False), "read")
    order.give_back(ROOM)
    assert order.faults == ["read: its memory is given back while it may still run"]


def test_it_is_where_the_allocator_knows_or_its_stream_has_waited() -> None:
    for waits in (False, True):
        order = Order()
        order.lend(ROOM, 1)
        order.launch(2, whole(writes=False), "read")
        if waits:
            order.learn(1, order.clock(2))
        else:
            order.used_by(ROOM, 2)
        order.give_back(ROOM)
        assert not order.faults
