"""What one particular death costs: single stories beside the random ones."""

from __future__ import annotations

from epd.errors import Unavailable
from tests.handoff.simulation import Simulation
from tests.handoff.stub_engines import SimDecode, SimPrefill
from tests.handoff.stub_workers import SimEncode


def serving() -> Simulation:
    """One worker per stage."""
    sim = Simulation()
    sim.open("gateway")
    sim.start(SimEncode, "encode-0", sim.context)
    sim.start(SimPrefill, "prefill-0", sim.context)
    sim.start(SimDecode, "decode-0", sim.context)
    sim.settle()
    return sim


def running(num_tokens: int) -> Simulation:
    """A request of eight tokens, `num_tokens` of which have come."""
    sim = serving()
    sim.submit("gateway", [2], 8)
    while len(sim.outcomes["r0"].tokens[0]) < num_tokens:
        sim.turn()
    return sim


def test_a_request_that_decode_has_taken_over_outlives_its_prefill_worker() -> None:
    sim = running(2)
    sim.kill("prefill-0", keep=0)
    sim.settle()
    assert sim.outcomes["r0"].finished == {0}
    sim.check_streams()
    sim.check_nothing_held()


def test_with_its_only_decode_worker_a_request_ends_with_503() -> None:
    sim = running(2)
    sim.kill("decode-0", keep=0)
    sim.settle()
    assert isinstance(sim.outcomes["r0"].error, Unavailable)
    sim.check_nothing_held()


def test_an_encoder_that_has_given_its_rows_is_not_missed() -> None:
    sim = running(1)
    sim.kill("encode-0", keep=0)
    sim.settle()
    assert sim.outcomes["r0"].finished == {0}
    sim.check_nothing_held()


def test_two_pictures_seen_before_whose_encoder_died_share_the_one_that_is_left() -> None:
    """Either may have been the cause, so the second waits: for the first's layout and no longer.

    The tower of the first is held until all layouts are known, the second's among them.
    """
    sim = serving()
    sim.submit("gateway", [1], 1)
    sim.settle()
    sim.start(SimEncode, "encode-1", sim.context)
    sim.settle()
    sim.submit("gateway", [1, 1], 1)
    sim.kill("encode-0", keep=0)
    sim.settle()
    assert sim.outcomes["r1"].finished == {0}
    sim.check_streams()
    sim.check_nothing_held()
