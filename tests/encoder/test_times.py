"""Where the time of items goes, on a clock that the test moves."""

from __future__ import annotations

from epd.encoder.times import MOST_ITEMS, ItemTimes
from epd.types import Activity, ItemKey, Origin
from epd.wire.messages import ItemSpans


class Clock:
    """Seconds, as the test says."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def ms(told: ItemSpans | None) -> dict[str, float]:
    assert told is not None
    return {span.activity.value: round(span.ms, 6) for span in told.spans}


def work(times: ItemTimes, clock: Clock, item: ItemKey, activity: Activity, seconds: float) -> None:
    with times.measure(item, activity):
        clock.now += seconds


A, B = ItemKey("r", 0, 1), ItemKey("s", 0, 1)


def test_what_is_no_activity_was_spent_in_queues() -> None:
    clock = Clock()
    times = ItemTimes(clock)
    times.came(A)
    clock.now += 1
    work(times, clock, A, Activity.FETCH, 2)
    times.sized(A, 99)
    work(times, clock, A, Activity.DECODE, 3)
    told = times.so_far(A)
    assert ms(told) == {"queue": 1000, "fetch": 2000, "decode": 3000}
    assert told is not None and (told.origin, told.num_bytes) == (None, 99)
    clock.now += 4
    clock.now += 5
    times.encoded(A, [A], seconds=5, ended=clock.now, batch_items=3)
    told = times.end(A)
    assert ms(told) == {"queue": 5000, "fetch": 2000, "decode": 3000, "encode": 5000}
    assert told is not None and (told.origin, told.batch_items) == (Origin.TOWER, 3)


def test_ages_count_back_from_the_moment_of_telling() -> None:
    clock = Clock()
    times = ItemTimes(clock)
    times.came(A)
    clock.now += 1
    work(times, clock, A, Activity.DECODE, 2)
    clock.now += 4
    told = times.so_far(A)
    assert told is not None
    ages = {span.activity.value: span.ago_ms for span in told.spans}
    assert ages == {"queue": 7000, "decode": 6000}


def test_who_follows_another_has_no_tower_time_of_its_own() -> None:
    clock = Clock()
    times = ItemTimes(clock)
    times.came(A)
    times.came(B)
    clock.now += 2
    times.encoded(A, [A, B], seconds=clock.now, ended=clock.now, batch_items=1)
    told = times.end(B)
    assert ms(told) == {"queue": 2000}
    assert told is not None and (told.origin, told.batch_items) == (Origin.SHARED, 0)


def test_rows_that_were_there_are_from_the_cache() -> None:
    times = ItemTimes(Clock())
    times.came(A)
    times.known(A)
    told = times.end(A)
    assert told is not None and told.origin is Origin.CACHE


def test_items_that_are_gone_are_nobodys_business_and_do_not_pile_up() -> None:
    clock = Clock()
    times = ItemTimes(clock)
    work(times, clock, A, Activity.DECODE, 1)
    times.encoded(A, [A], seconds=clock.now, ended=clock.now, batch_items=1)
    times.known(A)
    times.sized(A, 1)
    assert times.so_far(A) is None and times.end(A) is None and len(times) == 0
    for index in range(MOST_ITEMS + 10):
        times.came(ItemKey("r", index, 1))
    assert len(times) == MOST_ITEMS
