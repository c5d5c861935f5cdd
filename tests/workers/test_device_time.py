"""Workers whose device works later: who is charged for it, and what a request is told it took."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from epd.engine import Engine, StepResult
from epd.engine.exchange import KvExchange
from epd.models.laps import Lap, Laps
from epd.types import Activity
from epd.wire.inbox import Inbox
from epd.wire.messages import RequestSpans
from epd.workers.process import Worker
from epd.workers.turns import Claims, Turn
from tests.device import Device
from tests.engine.tiny import greedy, make_case
from tests.workers.stage import Stage

FORWARD_S, STEP_S = 1.0, 0.125


class Core:
    """Always has work. What generates waits for what it asked for; towers do not."""

    def __init__(self, device: Device, seconds: float, *, reads: bool, log: list[str]) -> None:
        self.claims = Claims(arriving=not reads, running=reads)
        self.stuck = False
        self._device, self._seconds, self._reads, self._log = device, seconds, reads, log

    def step(self, turn: Turn) -> None:
        self._device.work(self._seconds)
        if self._reads:
            self._device.wait()
        self._log.append("step" if self._reads else "towers")

    def gauges(self) -> dict[str, int]:
        return {}


def turned(device: Device, begin: Callable[[], Lap], num: int) -> list[str]:
    """Who stepped in so many turns of a process with towers and streams."""
    log: list[str] = []
    worker, laps = Worker(Inbox(capacity=1), drain_s=0.0), Laps(begin)
    station = SimpleNamespace(settle=lambda: None, tick=lambda: None, welcome=True)
    cores = [
        Core(device, FORWARD_S, reads=False, log=log),
        Core(device, STEP_S, reads=True, log=log),
    ]
    seats: Any = [
        SimpleNamespace(
            core=core, laps=laps, station=station, pulse=SimpleNamespace(), counters=dict
        )
        for core in cores
    ]
    worker.seats = seats
    for _ in range(num):
        worker._turn()
    return log


def test_towers_on_a_device_get_half_of_its_time_beside_streams() -> None:
    log = turned(device := Device(), device.lap, 81)
    assert log.count("step") == 81
    assert log.count("towers") in (10, 11)
    gaps = "".join(name[0] for name in log).split("s")
    assert max(map(len, gaps)) == 1, "no step of a stream waits for two forwards"


def test_by_the_hosts_clock_every_step_of_a_stream_would_wait_for_a_forward() -> None:
    """The control: who waits is charged with what it waited for."""
    log = turned(device := Device(), device.host_lap, 81)
    assert log.count("towers") == 81


# ---- one request

CASE = make_case(1, texts=(20, 30, 9), grids=((3, 4), (4, 4)))

TEXT = make_case(2, texts=(60,))


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def stage(device: Device, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return stage_on(device, monkeypatch)


def stage_on(device: Device, monkeypatch: pytest.MonkeyPatch, **config: Any) -> Stage:
    """Every forward takes STEP_S of the device; ids are there when it has done it."""
    made = Stage(**config)
    for core in made.cores.values():
        core._laps = Laps(device.lap)
    step, late = Engine.step, config.get("ahead") == "on"

    def asked(engine: Engine, *, hold: bool = False) -> StepResult:
        before, forwards = device.asked, engine.counts["steps"]
        result = step(engine, hold=hold)
        device.work(STEP_S * (engine.counts["steps"] - forwards))
        if result.tokens:
            device.wait(before if late else None)
        return result

    monkeypatch.setattr(Engine, "step", asked)
    return made


def test_prefill_is_told_by_the_device_before_its_token_goes(stage: Stage, device: Device) -> None:
    """Steps whose ids nobody reads are asked for and left."""
    stage.ask(CASE, greedy(2))
    stage.run(until=lambda: bool(stage.answers(RequestSpans)))
    (told,) = stage.answers(RequestSpans)
    (prefill,) = [span for span in told.spans if span.activity is Activity.PREFILL]
    assert len(told.chunks) > 1
    assert [chunk.ms for chunk in told.chunks] == [1000 * STEP_S] * len(told.chunks)
    assert prefill.ms == 1000 * STEP_S * len(told.chunks)
    agos = [chunk.ago_ms for chunk in told.chunks]
    assert agos == sorted(agos, reverse=True), "one behind the other, though told together"
    stage.run()
    stage.close()


def test_a_prompts_token_goes_while_the_next_prompt_is_computed(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read late, it waits for its own forward; what is told of it is of that one."""
    stage = stage_on(device, monkeypatch, ahead="on", max_step_tokens=128)
    keys = [stage.ask(TEXT, greedy(2)) for _ in range(2)]
    stage.ask(CASE, greedy(2))
    stage.run(until=lambda: bool(stage.answers(RequestSpans)))
    told = stage.answers(RequestSpans)
    assert [each.request for each in told] == keys
    assert [chunk.ms for each in told for chunk in each.chunks] == [1000 * STEP_S] * 2
    assert (device.done, device.asked) == (STEP_S, 2 * STEP_S)
    stage.run()
    stage.check_nothing_held()
    stage.close()


def test_decoding_has_begun_when_the_device_has_the_kv_in_its_pages(
    stage: Stage, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = stage.cores["decode"]
    write = KvExchange.write

    def copied(*args: Any) -> None:
        write(*args)
        device.work(0.5)

    monkeypatch.setattr(KvExchange, "write", copied)
    key = stage.ask(CASE, greedy(3))
    stage.run(until=lambda: any(decode.claims))
    assert len(stage.answers(RequestSpans)) == 1, "what prefill took"
    assert decode._laps.pending
    stage.run()
    told = stage.answers(RequestSpans)
    started = [span.activity for span in told[1].spans]
    assert started == [Activity.TRANSFER, Activity.HANDOFF]
    assert [span.activity for span in told[2].spans] == [Activity.DECODE]
    assert len(stage.tokens(key)) == 3
    stage.close()
