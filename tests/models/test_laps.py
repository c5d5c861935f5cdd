"""Laps are told in their order, with the device's seconds, once it is through with them."""

from __future__ import annotations

from time import perf_counter

import pytest
import torch

from epd.models.laps import Laps, laps_for
from tests.device import Device
from tests.waits import waits


def test_on_the_host_a_lap_is_told_as_it_ends() -> None:
    laps, told = laps_for(torch.device("cpu")), list[tuple[float, float]]()
    since = perf_counter()
    laps.end(laps.begin(), lambda *said: told.append(said))
    laps.then(lambda: told.append((-1.0, 0.0)))
    (seconds, ended), _ = told
    assert 0 <= seconds <= perf_counter() - since and since <= ended <= perf_counter()
    assert not laps.pending


def test_a_device_tells_when_it_is_through_and_how_long_that_took() -> None:
    device = Device()
    laps, told = Laps(device.lap), dict[str, tuple[float, float]]()
    for name, seconds in (("a", 3.0), ("b", 2.0)):
        lap = laps.begin()
        device.work(seconds)
        laps.end(lap, lambda *said, name=name: told.update({name: said}))
        device.work(0.5)  # no lap's
    laps.then(lambda: told.update(then=(0.0, 0.0)))
    device.run(2.9)
    laps.settle()
    assert not told and laps.pending
    device.run(1.0)
    laps.settle()
    assert list(told) == ["a"] and told["a"][0] == 3.0
    device.run(9.0)
    laps.settle()
    assert list(told) == ["a", "b", "then"] and told["b"][0] == 2.0
    assert not laps.pending


def test_laps_that_are_told_together_ended_apart() -> None:
    device = Device()
    laps, ended = Laps(device.lap), list[float]()
    begun = []
    for seconds in (3.0, 2.0, 7.0):
        begun.append(laps.begin())
        device.work(seconds)
        laps.end(begun[-1], lambda _, at: ended.append(at))
    laps.finish(begun[1])
    assert ended[1] - ended[0] == pytest.approx(2.0)
    assert device.host == 5.0  # a wait, and told apart from the device's own time
    assert len(ended) == 2 and laps.pending, "what is behind it is not waited for"
    laps.finish(begun[0])
    assert device.host == 5.0, "it was told"


@pytest.mark.gpu
def test_a_card_times_its_own_work_and_nobody_waits() -> None:
    """Asking for the products takes the host next to no time, and the card a while."""
    laps, told = laps_for(torch.device("cuda")), list[float]()
    one = torch.randn(4096, 4096, device="cuda")
    for _ in range(2):  # the first time loads what it needs
        torch.cuda.synchronize()
        began = perf_counter()
        with waits() as who:
            lap = laps.begin()
            for _ in range(20):
                one @ one
            laps.end(lap, lambda seconds, _: told.append(seconds))
            asked = perf_counter() - began
        assert not who and laps.pending
        torch.cuda.synchronize()
        whole = perf_counter() - began
        laps.settle()
    assert asked < told[-1] <= whole and told[-1] > 0.5 * whole
