"""What towers take is what their device takes, and not what it takes to ask it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from epd.encoder import ItemEncoded
from epd.models.laps import Laps
from epd.types import Activity
from tests.device import Device
from tests.encoder.bench import Bench, key, picture
from tests.encoder.towers import PlainTowers, Prepared

FORWARD_S = 3.0


class AskedTowers(PlainTowers):
    """Rows are there at once, as far as the host can tell."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self._device = device

    def encode(self, batch: Sequence[Prepared]) -> list[torch.Tensor]:
        self._device.work(FORWARD_S)
        return super().encode(batch)


def test_rows_go_on_at_once_and_times_follow_when_the_device_is_through(
    benches: list[Bench],
) -> None:
    device = Device()
    laps = Laps(device.lap)
    bench = Bench(towers=AskedTowers(device), laps=laps)
    benches.append(bench)
    encoder = bench.encoder
    for index in range(2):
        bench.prepare(key(index), picture(2 + index))
    assert encoder.step() == [ItemEncoded(key(0), 2), ItemEncoded(key(1), 3)]
    assert encoder.timed() == [] and encoder.gauges()["tower_ms"] == 0
    device.run(2.9)
    laps.settle()
    assert encoder.timed() == []
    device.run(0.1)
    laps.settle()
    assert encoder.timed() == [key(0), key(1)] and encoder.timed() == []
    assert encoder.gauges()["tower_ms"] == 1000 * FORWARD_S
    told = encoder.times.end(key(0))
    assert told is not None and told.batch_items == 2
    assert {span.activity: span.ms for span in told.spans}[Activity.ENCODE] == 1000 * FORWARD_S


def test_by_the_hosts_clock_it_would_have_taken_nothing(benches: list[Bench]) -> None:
    """The control."""
    device = Device()
    bench = Bench(towers=AskedTowers(device), laps=Laps(device.host_lap))
    benches.append(bench)
    bench.prepare(key(0), picture(2))
    bench.run()
    assert bench.encoder.timed() == [key(0)] and bench.encoder.gauges()["tower_ms"] == 0


def test_what_was_known_already_is_timed_at_once(benches: list[Bench]) -> None:
    device = Device()
    bench = Bench(towers=AskedTowers(device), laps=Laps(device.lap))
    benches.append(bench)
    bench.prepare(key(0), picture(2))
    bench.run()
    bench.prepare(key(1), picture(2))
    assert bench.encoder.step() == [ItemEncoded(key(1), 2)]
    assert bench.encoder.timed() == [key(1)]
