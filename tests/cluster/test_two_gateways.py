"""Two gateways over the same workers: one dies, workers come back at once, all of them restart."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cluster.clients import Load, Question, ask
from tests.cluster.crew import Crew, ports
from tests.cluster.front import eventually

pytestmark = pytest.mark.alone

QUESTIONS = (
    Question((1,), "Hello there"),
    Question((2, 3), "Go on."),
    Question((), "Hello there"),
)
WORKERS = ("encode-0", "encode-1", "prefill-0", "prefill-1", "decode-0", "decode-1")
CUT_S = 10.0


class Pair:
    """Two gateways, two workers of each stage, and what both gateways answer when all is well."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        for name in ("gateway-0", "gateway-1"):
            crew.start(name)
        self.fronts = [crew.front(name) for name in ("gateway-0", "gateway-1")]
        for name in WORKERS:
            crew.start(name)
        for name in WORKERS:
            crew.hands[name].ready()
        self.right = {q: ask(self.fronts[0], q, stream=True).text for q in QUESTIONS}

    def check_right(self, load: Load) -> None:
        """No request is lost, and no word is different."""
        wrong = [o for o in load.outcomes if not o.complete or o.text != self.right[o.question]]
        assert load.outcomes and wrong == []

    def check_idle(self) -> None:
        """Every worker is known to both gateways and holds nothing for anybody."""
        everybody = [set(WORKERS)] * len(self.fronts)
        eventually(lambda: [front.workers() for front in self.fronts] == everybody, "all are known")
        for front in self.fronts:
            front.wait_until_idle()
        assert self.crew.tracebacks() == []


@pytest.fixture(scope="module")
def pair(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    settings = ("wire.dead_after_s=8", "wire.heartbeat_s=0.2", "threads=1")
    folder = tmp_path_factory.mktemp("pair")
    crew = Crew(path, folder, *settings, port=ports())
    with ExitStack() as stack:
        stack.callback(crew.close)
        yield Pair(crew)


def test_a_killed_gateway_is_noticed_by_its_own_clients_alone(pair: Pair) -> None:
    """What the workers held for it is given back; it comes back and is served again."""
    dies, lives = pair.fronts
    with Load(lives, QUESTIONS, clients=3) as load, Load(dies, QUESTIONS, clients=3) as cut:
        eventually(lambda: load.streaming and cut.streaming, "both gateways serve")
        pair.crew.kill("gateway-0")
        killed = time.monotonic()
        so_many = len(load.outcomes) + 3
        eventually(lambda: len(load.outcomes) > so_many, "requests go on", 60.0)
    pair.check_right(load)
    for outcome in cut.outcomes:
        assert outcome.complete or (outcome.cut and outcome.ended_at - killed < CUT_S), outcome
    lives.wait_until_idle()
    pair.crew.hands["gateway-0"].start()
    pair.fronts[0] = pair.crew.front("gateway-0")
    eventually(lambda: pair.fronts[0].workers() == set(WORKERS), "the workers are back")
    for question in QUESTIONS:
        assert ask(pair.fronts[0], question, stream=False).text == pair.right[question]
    pair.check_idle()


@pytest.mark.parametrize("name", ["decode-0", pytest.param("prefill-0", marks=pytest.mark.slow)])
def test_a_killed_worker_that_is_back_at_once_loses_no_request(pair: Pair, name: str) -> None:
    """Its successor listens where it listened and is not taken for it."""
    with ExitStack() as stack:
        loads = [stack.enter_context(Load(f, QUESTIONS, clients=2)) for f in pair.fronts]
        eventually(lambda: all(load.streaming for load in loads), "both gateways serve")
        pair.crew.again(name, signal.SIGKILL).ready()
    for load in loads:
        pair.check_right(load)
    pair.check_idle()


@pytest.mark.slow
def test_a_restart_of_every_worker_in_turn_loses_no_request(pair: Pair) -> None:
    with ExitStack() as stack:
        loads = [stack.enter_context(Load(f, QUESTIONS, clients=2)) for f in pair.fronts]
        eventually(lambda: all(load.streaming for load in loads), "both gateways serve")
        for name in WORKERS:
            pair.crew.again(name).ready()
    for load in loads:
        pair.check_right(load)
    pair.check_idle()
