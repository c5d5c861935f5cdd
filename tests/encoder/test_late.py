"""Items that nobody waits for any more: not fetched, not decoded, not encoded, and said so."""

from __future__ import annotations

import time

from epd.encoder import ItemEncoded
from epd.errors import TooLate
from tests.encoder.bench import Bench, key, picture
from tests.eventually import eventually

MINUTE_MS = 60_000


def expire(bench: Bench, after_s: float = 100.0) -> list[int]:
    """Items that are late by then."""
    broken = bench.encoder.expire(time.monotonic() + after_s)
    assert all(isinstance(late.error, TooLate) for late in broken)
    return [late.item.index for late in broken]


def test_an_item_in_time_is_encoded(bench: Bench) -> None:
    """And is late no more, however long its rows are kept."""
    bench.prepare(key(0), picture(2), deadline_ms=MINUTE_MS)
    assert expire(bench, after_s=0.0) == []
    assert bench.run() == [ItemEncoded(key(0), 2)]
    assert expire(bench) == []
    assert bench.encoder.rows(key(0)) is not None


def test_a_late_item_is_not_encoded(bench: Bench) -> None:
    """Its place in the queue before the towers is free."""
    bench.prepare(key(0), picture(2), deadline_ms=MINUTE_MS)
    late = bench.encoder.expire(time.monotonic() + 100)
    assert [(one.item, one.error.status, one.error.code) for one in late] == [
        (key(0), 503, "deadline")
    ]
    assert late[0].error.message.startswith("image 0: the request's deadline")
    assert not bench.encoder.has_work and bench.towers.batches == []
    assert not any(bench.held().values())


def test_a_late_item_is_not_decoded(benches: list[Bench]) -> None:
    """It was still in the queue of the intake; the time was over when its turn came."""
    bench = Bench(intake_threads=1)
    benches.append(bench)
    bench.hold_intake()
    bench.submit(key(0), picture(2))
    assert bench.towers.entered.wait(30)
    bench.submit(key(1), picture(3), deadline_ms=1)
    eventually(lambda: expire(bench, after_s=0.0), "its time is over", pause_s=0.001)
    bench.release_intake()
    bench.event()
    bench.encoder.close()
    assert bench.inbox.empty()
    assert bench.encoder.gauges()["intake_jobs"] == 0


def test_who_shares_the_way_of_a_late_item_goes_on(bench: Bench) -> None:
    """The work is for both, and one of them has time."""
    bench.prepare(key(0), picture(2), deadline_ms=MINUTE_MS)
    bench.prepare(key(1), picture(2), deadline_ms=2 * MINUTE_MS)
    assert expire(bench) == [0]
    assert bench.run() == [ItemEncoded(key(1), 2)]


def test_who_has_time_keeps_the_way_of_one_that_is_late(bench: Bench) -> None:
    """The other way round."""
    bench.prepare(key(0), picture(2))
    bench.prepare(key(1), picture(2), deadline_ms=MINUTE_MS)
    assert expire(bench) == [1]
    assert bench.run() == [ItemEncoded(key(0), 2)]
