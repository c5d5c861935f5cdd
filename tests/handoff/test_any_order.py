"""The hand-offs and the ownership of requests under random orders of events."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.handoff.simulation import SimDecode, SimEncode, SimPrefill, Simulation

KINDS = {"encode": SimEncode, "prefill": SimPrefill, "decode": SimDecode}


class AnyOrder(RuleBasedStateMachine):
    """Eight requests at most on pools of about 1.1 requests; anything may happen at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.sim = Simulation(capacity=22)
        self.restarts = 0

    @initialize(encoders=st.integers(1, 2), prefills=st.integers(1, 2), decodes=st.integers(1, 2))
    def start(self, encoders: int, prefills: int, decodes: int) -> None:
        counts = {"encode": encoders, "prefill": prefills, "decode": decodes}
        for kind, count in counts.items():
            for index in range(count):
                self.sim.join(KINDS[kind], f"{kind}-{index}")

    @precondition(lambda self: len(self.sim.outcomes) < 8)
    @rule(rows=st.lists(st.integers(1, 4), max_size=3), tokens=st.integers(1, 6))
    def submit(self, rows: list[int], tokens: int) -> None:
        self.sim.submit(f"r{len(self.sim.outcomes)}", rows, tokens)

    @precondition(lambda self: self.sim.queues)
    @rule(data=st.data(), repeat=st.integers(0, 9), count=st.integers(1, 20))
    def deliver(self, data: st.DataObject, repeat: int, count: int) -> None:
        for _ in range(count):
            if self.sim.queues:
                key = data.draw(st.sampled_from(sorted(self.sim.queues)))
                self.sim.deliver(key, repeat=repeat == 0)

    @precondition(lambda self: self.sim.workers)
    @rule(data=st.data(), count=st.integers(1, 10))
    def work(self, data: st.DataObject, count: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.sim.workers)))
        for _ in range(count):
            self.sim.workers[name].step()

    @precondition(lambda self: self.sim.outcomes)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.sim.cancel(data.draw(st.sampled_from(sorted(self.sim.outcomes))))

    @precondition(lambda self: self.sim.workers)
    @rule(data=st.data())
    def evict(self, data: st.DataObject) -> None:
        for worker in self.sim.workers.values():
            if isinstance(worker, SimEncode):
                worker.evict()

    @precondition(lambda self: self.sim.workers)
    @rule(data=st.data(), comes_back=st.booleans())
    def kill(self, data: st.DataObject, comes_back: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.sim.workers)))
        kind = type(self.sim.workers[name])
        self.sim.kill(name)
        if comes_back:
            self.sim.join(kind, name)

    @invariant()
    def streams_are_right(self) -> None:
        self.sim.check_streams()

    def teardown(self) -> None:
        self.sim.settle()
        for request_id, outcome in self.sim.outcomes.items():
            assert outcome.ended, f"{request_id} hangs"
            if not self.sim.faults and not outcome.cancelled:
                assert outcome.finish is not None, outcome.error
        self.sim.check_streams()
        self.sim.check_nothing_held()


AnyOrder.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestAnyOrder = AnyOrder.TestCase
