"""Where the time of requests goes on a language worker, on a clock that the test moves."""

from __future__ import annotations

import pytest

from epd.types import ItemKey, RequestKey
from epd.wire.messages import EmbeddingData, Payload, RequestSpans
from epd.workers.timing import MOST_CHUNKS, RequestTimes

KEY = RequestKey("r", 1)


class Clock:
    """Seconds, as the test says."""

    now = 10.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def times(clock: Clock) -> RequestTimes:
    return RequestTimes(clock)


def ms(told: RequestSpans | None) -> dict[str, float]:
    assert told is not None
    return {span.activity.value: round(span.ms, 6) for span in told.spans}


def part(num_rows: int) -> EmbeddingData:
    payload = Payload(dtype="float32", shape=(num_rows, 2), nbytes=8 * num_rows)
    item = ItemKey("r", 0, 1)
    return EmbeddingData(request=KEY, item=item, first_row=0, num_rows=num_rows, payload=payload)


def step(times: RequestTimes, clock: Clock, num_tokens: int, seconds: float) -> None:
    clock.now += seconds
    times.computed(KEY, num_tokens, seconds=seconds, ended=clock.now)


def test_a_prompt_waits_for_rows_computes_and_queues_the_rest(
    times: RequestTimes, clock: Clock
) -> None:
    times.began(KEY)
    times.ready(KEY, 5, clock.now)
    clock.now += 1
    step(times, clock, 5, 2)
    times.ready(KEY, 5, clock.now)
    clock.now += 3
    clock.now += 4
    times.landed(part(6), seconds=4, ended=clock.now)
    times.ready(KEY, 20, clock.now)
    clock.now += 5
    step(times, clock, 20, 6)
    told = times.prefilled(KEY, 0.5)
    assert ms(told) == {"queue": 6000, "prefill": 8000, "wait": 7000, "merge": 500}
    assert told is not None
    (rows,) = told.rows
    assert (rows.num_rows, rows.num_bytes, rows.transfer.ms) == (6, 48, 4000)


def test_a_prompt_whose_beginning_is_cached_waits_from_there(
    times: RequestTimes, clock: Clock
) -> None:
    """Ready up to where KV is cached means that nothing can be computed."""
    times.began(KEY, 16)
    times.ready(KEY, 16, clock.now)
    clock.now += 1
    times.ready(KEY, 30, clock.now)
    step(times, clock, 30, 1)
    told = times.prefilled(KEY, 0.0)
    assert ms(told) == {"queue": 0, "prefill": 1000, "wait": 1000, "merge": 0}


def test_text_waits_for_no_rows(times: RequestTimes, clock: Clock) -> None:
    times.began(KEY)
    step(times, clock, 30, 1)
    assert ms(times.prefilled(KEY, None)) == {"queue": 0, "prefill": 1000}


def test_every_chunk_of_a_prompt_is_told_and_of_very_many_the_last_as_one(
    times: RequestTimes, clock: Clock
) -> None:
    times.began(KEY, 16)
    for done in range(1, MOST_CHUNKS + 3):
        step(times, clock, 16 + 10 * done, 1)
        clock.now += 1
    told = times.prefilled(KEY, None)
    assert told is not None and len(told.chunks) == MOST_CHUNKS
    first, last = told.chunks[0], told.chunks[-1]
    assert (first.num_tokens, first.ms, first.ago_ms) == (10, 1000, 2000 * (MOST_CHUNKS + 2))
    assert (last.num_tokens, last.ms) == (30, 3000)


def test_parts_of_an_item_are_one_transfer_from_the_first_to_the_last(
    times: RequestTimes, clock: Clock
) -> None:
    times.began(KEY)
    for _ in range(2):
        clock.now += 1
        times.landed(part(3), seconds=1, ended=clock.now)
    told = times.prefilled(KEY, 0.0)
    assert told is not None
    assert (told.rows[0].num_rows, told.rows[0].transfer.ms) == (6, 2000)


def test_decode_says_what_came_before_its_start_and_then_how_long_it_ran(
    times: RequestTimes, clock: Clock
) -> None:
    times.began(KEY)
    clock.now += 9
    times.offered(KEY)
    clock.now += 1
    times.offered(KEY)
    times.kv_landed(KEY, 100)
    times.handed_off(KEY)
    clock.now += 2
    times.kv_landed(KEY, 50)
    told = times.started(KEY, clock.now)
    assert ms(told) == {"transfer": 3000, "handoff": 2000}
    assert told is not None and told.num_bytes == 150
    clock.now += 5
    assert ms(times.ended(KEY)) == {"decode": 5000}


def test_requests_that_are_gone_are_nobodys_business(times: RequestTimes) -> None:
    times.began(KEY)
    assert times.ended(KEY) is None  # it never decoded
    times.forget(KEY)
    times.forget(KEY)
    times.landed(part(1), seconds=0.0, ended=0.0)
    times.computed(KEY, 1, seconds=0.0, ended=0.0)
    times.ready(KEY, 1, 0.0)
    times.offered(KEY)
    times.kv_landed(KEY, 1)
    times.handed_off(KEY)
    found = times.prefilled(KEY, 0.0), times.started(KEY, 0.0), times.ended(KEY)
    assert found == (None, None, None) and len(times) == 0
