"""Equal items: one decoding, one tower run, and nobody suffers from another's fate."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from epd.encoder import ItemBroken, ItemEncoded, ItemPrepared
from epd.errors import BadMedia
from epd.types import MediaOptions
from tests.encoder.bench import Bench, key, picture
from tests.encoder.towers import ROW_BYTES


def in_flight(bench: Bench, count: int, data: bytes | None = None) -> None:
    """`count` equal items: the first is inside the processor, the others have joined it."""
    bench.towers.gate = threading.Event()
    bench.submit(key(0), data or picture(3))
    assert bench.towers.entered.wait(30)
    for index in range(1, count):
        bench.submit(key(index), data or picture(3))
        bench.settle()
    assert bench.encoder.gauges()["followers"] == count - 1


def prepared_events(bench: Bench, count: int) -> list[ItemPrepared]:
    events = [bench.event() for _ in range(count)]
    found = [event for event in events if isinstance(event, ItemPrepared)]
    assert len(found) == count
    return found


def sharing(benches: list[Bench], **config: Any) -> Bench:
    """Two intake threads: while one is inside the processor, the other looks at what comes."""
    benches.append(Bench(intake_threads=2, **config))
    return benches[-1]


def test_a_picture_that_comes_again_is_neither_decoded_nor_encoded(bench: Bench) -> None:
    first = bench.prepare(key(0), picture(3))
    bench.run()
    again = bench.prepare(key(1), picture(3))
    assert again.prepared.layout == first.prepared.layout
    assert bench.run() == [ItemEncoded(key(1), 3)]
    assert len(bench.towers.media) == len(bench.towers.batches) == 1
    rows = [bench.encoder.rows(key(index)) for index in range(2)]
    assert rows[0] is not None and rows[1] is not None
    assert torch.equal(rows[0], rows[1])
    assert bench.encoder.gauges()["cache_hits"] == 1
    assert bench.encoder.gauges()["cache_misses"] == 1


@pytest.mark.parametrize(
    "other",
    [
        {"salt": "another tenant"},
        {"text_before": "Frame1: "},
        {"options": MediaOptions(siblings=2)},
    ],
)
def test_what_shapes_the_result_or_keeps_tenants_apart_is_another_item(
    bench: Bench, other: dict[str, Any]
) -> None:
    bench.prepare(key(0), picture(3))
    bench.run()
    bench.prepare(key(1), picture(3), **other)
    bench.run()
    assert len(bench.towers.batches) == 2


def test_a_cache_without_capacity_keeps_nothing(benches: list[Bench]) -> None:
    bench = sharing(benches, cache_bytes=0)
    for index in range(2):
        bench.prepare(key(index), picture(3))
        bench.run()
    assert len(bench.towers.batches) == 2
    assert bench.encoder.gauges()["cache_bytes"] == 0


def test_the_cache_keeps_what_fits(benches: list[Bench]) -> None:
    bench = sharing(benches, cache_bytes=6 * ROW_BYTES)
    for index, shade in enumerate((1, 2, 3, 1, 3)):
        bench.prepare(key(index), picture(3, shade=shade))
        bench.run()
    assert len(bench.towers.batches) == 4  # the first was evicted by the third
    assert bench.encoder.gauges()["cache_bytes"] == 6 * ROW_BYTES


def test_rows_of_an_item_outlive_those_who_shared_them(bench: Bench) -> None:
    for index in range(2):
        bench.prepare(key(index), picture(3))
    bench.run()
    bench.encoder.drop(key(0))
    rows = bench.encoder.rows(key(1))
    assert rows is not None and rows.shape[0] == 3


def test_items_that_are_on_their_way_together_share_it(benches: list[Bench]) -> None:
    bench = sharing(benches)
    in_flight(bench, 3)
    assert bench.towers.gate is not None
    bench.towers.gate.set()
    events = prepared_events(bench, 3)
    assert {event.item for event in events} == {key(0), key(1), key(2)}
    assert all(bench.encoder.prepared(event) for event in events)
    assert sorted(result.item for result in bench.run()) == [key(0), key(1), key(2)]
    assert len(bench.towers.media) == len(bench.towers.batches) == 1
    assert bench.held()["prepared_bytes"] == 0


def test_one_that_comes_after_the_layout_shares_the_tower(bench: Bench) -> None:
    bench.prepare(key(0), picture(3))
    bench.prepare(key(1), picture(3))
    assert {result.item for result in bench.run()} == {key(0), key(1)}
    assert bench.towers.batches == [[6]]


def test_rows_that_come_before_a_layout_is_on_record_wait_for_it(bench: Bench) -> None:
    """The one who follows has its layout in the inbox while the tower runs for the leader."""
    bench.prepare(key(0), picture(3))
    bench.submit(key(1), picture(3))
    (event,) = prepared_events(bench, 1)
    assert bench.run() == [ItemEncoded(key(0), 3)]
    assert bench.encoder.prepared(event)
    assert bench.run() == [ItemEncoded(key(1), 3)]
    assert len(bench.towers.batches) == 1
    assert bench.held()["early_items"] == 0


def test_rows_that_came_early_are_let_go_with_their_item(bench: Bench) -> None:
    bench.prepare(key(0), picture(3))
    bench.submit(key(1), picture(3))
    (event,) = prepared_events(bench, 1)
    bench.run()
    bench.encoder.drop(key(1))
    assert not bench.encoder.prepared(event)
    assert bench.run() == []
    assert bench.held()["early_items"] == 0


def test_a_leader_that_fails_does_not_fail_those_who_follow(benches: list[Bench]) -> None:
    """Whatever it failed of may have been its own bad luck."""
    bench = sharing(benches)
    bench.towers.prepare_error = BadMedia("took too long")
    in_flight(bench, 3)
    assert bench.towers.gate is not None
    bench.towers.fail_once = True
    bench.towers.gate.set()
    events = [bench.event() for _ in range(3)]
    broken = [event for event in events if isinstance(event, ItemBroken)]
    assert [event.item for event in broken] == [key(0)]
    assert broken[0].error.message == "image 0: took too long"
    alive = [event for event in events if isinstance(event, ItemPrepared)]
    assert all(bench.encoder.prepared(event) for event in alive)
    assert {result.item for result in bench.run()} == {key(1), key(2)}


def test_what_is_wrong_with_all_of_them_is_said_to_each(benches: list[Bench]) -> None:
    bench = sharing(benches)
    in_flight(bench, 3, picture(1))
    assert bench.towers.gate is not None
    bench.towers.gate.set()
    events = [bench.event() for _ in range(3)]
    texts = sorted(event.error.message for event in events if isinstance(event, ItemBroken))
    assert texts == [f"image {index}: 1x1 pixels are too few" for index in range(3)]
    assert not any(bench.held().values())


def test_a_leader_that_is_dropped_while_it_is_prepared_keeps_those_who_follow(
    benches: list[Bench],
) -> None:
    bench = sharing(benches)
    in_flight(bench, 2)
    bench.encoder.drop(key(0))
    assert bench.towers.gate is not None
    bench.towers.gate.set()
    (event,) = prepared_events(bench, 1)
    assert event.item == key(1)
    assert bench.encoder.prepared(event)
    assert bench.run() == [ItemEncoded(key(1), 3)]
    assert len(bench.towers.media) == 1
    assert bench.encoder.rows(key(0)) is None


def test_a_leader_that_is_dropped_in_the_queue_keeps_those_who_follow(bench: Bench) -> None:
    bench.prepare(key(0), picture(3))
    bench.prepare(key(1), picture(3))
    bench.encoder.drop(key(0))
    assert bench.run() == [ItemEncoded(key(1), 3)]
    assert bench.encoder.rows(key(0)) is None


def test_the_last_to_leave_ends_the_work(bench: Bench) -> None:
    bench.prepare(key(0), picture(3))
    bench.prepare(key(1), picture(3))
    bench.encoder.drop(key(1))
    bench.encoder.drop(key(0))
    assert bench.run() == []
    assert bench.towers.batches == []
    assert not any(bench.held().values())


def test_a_tower_that_fails_fails_all_who_wait_for_it(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.towers.poison = 7.0
    bench.prepare(key(0), picture(3))
    bench.prepare(key(1), picture(3))
    results = bench.run()
    assert [result.item for result in results if isinstance(result, ItemBroken)] == [
        key(0),
        key(1),
    ]
    assert not any(bench.held().values())
    assert bench.encoder.gauges()["cache_bytes"] == 0


def test_known_rows_of_a_dropped_item_are_not_announced(bench: Bench) -> None:
    bench.prepare(key(0), picture(3))
    bench.run()
    bench.prepare(key(1), picture(3))
    bench.encoder.drop(key(1))
    assert bench.run() == []


# ---- held items


def test_held_items_wait_together_and_one_that_is_needed_runs_for_all(bench: Bench) -> None:
    bench.prepare(key(0), picture(3), hold=True)
    bench.prepare(key(1), picture(3), hold=True)
    assert bench.run() == []
    bench.encoder.run(key(1))
    assert {result.item for result in bench.run()} == {key(0), key(1)}
    assert bench.towers.batches == [[6]]
    assert bench.held()["held_items"] == 0


def test_an_item_that_is_not_held_runs_what_an_equal_one_held_back(bench: Bench) -> None:
    bench.prepare(key(0), picture(3), hold=True)
    bench.prepare(key(1), picture(3))
    assert {result.item for result in bench.run()} == {key(0), key(1)}


def test_an_item_that_is_held_does_not_hold_back_an_equal_one(bench: Bench) -> None:
    bench.prepare(key(0), picture(3))
    bench.prepare(key(1), picture(3), hold=True)
    assert {result.item for result in bench.run()} == {key(0), key(1)}


def test_a_held_item_whose_rows_are_known_needs_no_tower(bench: Bench) -> None:
    bench.prepare(key(0), picture(3))
    bench.run()
    bench.prepare(key(1), picture(3), hold=True)
    assert bench.run() == [ItemEncoded(key(1), 3)]
    assert bench.held()["held_items"] == 0
