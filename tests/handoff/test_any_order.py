"""The hand-offs and the ownership of requests under random orders of events."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from epd.types import ItemKey
from tests.handoff.simulation import Simulation
from tests.handoff.stub_engines import SimDecode, SimFused, SimPrefill
from tests.handoff.stub_workers import SimEncode, Worker

KINDS: dict[str, type[Worker]] = {
    "encode": SimEncode,
    "prefill": SimPrefill,
    "decode": SimDecode,
    "fused": SimFused,
}
MAX_REQUESTS = 8


class AnyOrder(RuleBasedStateMachine):
    """A few requests on workers with room for one or two; anything may happen at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.sim = Simulation()
        self.cancels = 0  # few of what ends requests early, or most would never get far
        self.deaths = 0
        self.gateway_deaths = 0
        self.suspicions = 0

    @initialize(
        counts=st.fixed_dictionaries(
            {
                "encode": st.integers(1, 3),
                "prefill": st.integers(1, 3),
                "decode": st.integers(1, 3),
                "fused": st.integers(0, 1),
            }
        ),
        gateways=st.integers(1, 2),
        more=st.sampled_from([12, 22, 50]),
        sizes=st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3), st.integers(1, 5)),
        hits=st.integers(0, 4),
    )
    def start(
        self,
        counts: dict[str, int],
        gateways: int,
        more: int,
        sizes: tuple[int, int, int, int],
        hits: int,
    ) -> None:
        self.sim.hits = hits
        self.sim.quota_rows, self.sim.window, self.sim.chunk, self.sim.stride = sizes
        for index in range(gateways):
            self.sim.open(f"gateway-{index}")
        for kind, count in counts.items():
            for index in range(count):
                capacity = more if index else self.sim.context
                self.sim.start(KINDS[kind], f"{kind}-{index}", capacity)
        self.sim.settle()

    @precondition(lambda self: self.sim.gateways and len(self.sim.outcomes) < MAX_REQUESTS)
    @rule(
        data=st.data(),
        rows=st.lists(st.integers(1, 4), max_size=2),
        tokens=st.integers(1, 9),
        n=st.integers(1, 3),
        scored=st.booleans(),
    )
    def submit(
        self, data: st.DataObject, rows: list[int], tokens: int, n: int, scored: bool
    ) -> None:
        gateway = data.draw(st.sampled_from(sorted(self.sim.gateways)))
        self.sim.submit(gateway, rows, tokens, n, scored)

    @precondition(lambda self: self.begun())
    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        self.sim.stop(*data.draw(st.sampled_from(self.begun())))

    def begun(self) -> list[tuple[str, int]]:
        """Choices that have tokens and go on."""
        return [
            (request_id, choice)
            for request_id, outcome in self.sim.outcomes.items()
            for choice, tokens in enumerate(outcome.tokens)
            if tokens and not outcome.ended and choice not in outcome.finished | outcome.stopped
        ]

    @precondition(lambda self: self.sim.workers)
    @rule(data=st.data())
    def say_what_is_held(self, data: st.DataObject) -> None:
        self.sim.workers[data.draw(st.sampled_from(sorted(self.sim.workers)))].tell_holding()

    @precondition(lambda self: self.sim.queues)
    @rule(data=st.data(), repeat=st.integers(0, 9), count=st.integers(1, 20))
    def deliver(self, data: st.DataObject, repeat: int, count: int) -> None:
        for _ in range(count):
            if self.sim.queues:
                lane = data.draw(st.sampled_from(sorted(self.sim.queues)))
                self.sim.deliver(lane, repeat=repeat == 0)

    @precondition(lambda self: self.sim.workers)
    @rule(data=st.data(), count=st.integers(1, 10))
    def work(self, data: st.DataObject, count: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.sim.workers)))
        for _ in range(count):
            self.sim.workers[name].step()

    @rule(turns=st.integers(1, 8))
    def everybody(self, turns: int) -> None:
        """A while without surprises, so that requests get far."""
        for _ in range(turns):
            self.sim.turn()

    @precondition(lambda self: self.sim.outcomes and self.cancels < 2)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.cancels += 1
        self.sim.cancel(data.draw(st.sampled_from(sorted(self.sim.outcomes))))

    @rule()
    def evict(self) -> None:
        self.sim.evict()

    @precondition(lambda self: self.sim.outcomes and self.sim.gateways)
    @rule(data=st.data())
    def ask_for_an_item(self, data: st.DataObject) -> None:
        request_id = data.draw(st.sampled_from(sorted(self.sim.outcomes)))
        gateway = self.sim.outcomes[request_id].gateway
        for index, _ in enumerate(self.sim.outcomes[request_id].layouts):
            if gateway in self.sim.gateways:
                self.sim.ask(gateway, ItemKey(request_id, index, 1))

    @precondition(lambda self: self.sim.outcomes and self.suspicions < 3 and self.pairs())
    @rule(data=st.data())
    def suspect(self, data: st.DataObject) -> None:
        self.suspicions += 1
        self.sim.suspect(*data.draw(st.sampled_from(self.pairs())))

    def pairs(self) -> list[tuple[str, str]]:
        """Who may take whom for dead."""
        return sorted(
            (name, peer)
            for name, worker in self.sim.workers.items()
            for peer, number in worker.view.items()
            if peer in self.sim.workers and self.sim.workers[peer].incarnation == number
        )

    @precondition(lambda self: self.sim.faults < 9 and any(lane[-1] for lane in self.sim.queues))
    @rule(data=st.data())
    def spoil(self, data: st.DataObject) -> None:
        lanes = sorted(lane for lane in self.sim.queues if lane[-1])
        self.sim.spoil(data.draw(st.sampled_from(lanes)))

    @precondition(lambda self: self.sim.outcomes and self.sim.workers and self.deaths < 5)
    @rule(data=st.data(), comes_back=st.integers(0, 3), keep=st.integers(0, 5))
    def kill(self, data: st.DataObject, comes_back: int, keep: int) -> None:
        self.deaths += 1
        name = data.draw(st.sampled_from(sorted(self.sim.workers)))
        worker = self.sim.workers[name]
        self.sim.kill(name, keep)
        if comes_back:
            self.sim.start(type(worker), name, worker.capacity)

    @precondition(lambda self: self.sim.outcomes and not self.gateway_deaths)
    @rule(data=st.data(), comes_back=st.booleans(), keep=st.integers(0, 5))
    def kill_gateway(self, data: st.DataObject, comes_back: bool, keep: int) -> None:
        self.gateway_deaths += 1
        name = data.draw(st.sampled_from(sorted(self.sim.gateways)))
        self.sim.kill(name, keep)
        if comes_back:
            self.sim.open(name)

    @invariant()
    def streams_are_right(self) -> None:
        self.sim.check_streams()

    def teardown(self) -> None:
        self.sim.settle()
        for request_id, outcome in self.sim.outcomes.items():
            assert outcome.ended, f"{request_id} hangs"
            if not self.sim.faults and not outcome.given_up:
                assert outcome.answered, outcome.error
        self.sim.check_streams()
        self.sim.check_nothing_held()


def test_any_order_of_events_ends_every_request_and_leaks_nothing() -> None:
    """Streams are right at every moment; in the end nobody holds anything for anybody."""
    some = settings(max_examples=150, stateful_step_count=50)
    run_state_machine_as_test(AnyOrder, settings=some)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_orders_of_events_end_every_request_and_leak_nothing() -> None:
    """The same, for as long as it takes to meet what is rare."""
    many = settings(max_examples=3000, stateful_step_count=60)
    run_state_machine_as_test(AnyOrder, settings=many)
