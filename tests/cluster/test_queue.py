"""Who may wait for KV, and who is refused at once."""

from __future__ import annotations

import math

import pytest

from epd.cluster import Accepted
from epd.cluster.instructions import Failed, Instruction
from epd.cluster.queue import Queue
from epd.types import RequestKey
from epd.wire import messages as m
from tests.cluster.owning import Gateway, emitted, error, told
from tests.cluster.samples import fused, run


def crowded(max_wait_s: float, *, every_ms: int = 1000, text: int = 4) -> Gateway:
    """F has refused request "r", and has room every `every_ms`."""
    gateway = Gateway(fused(), max_wait_s=max_wait_s)
    gateway.submit(text=text)
    gateway.owner.refused("F", refusal("r", every_ms))
    return gateway


def refusal(request_id: str, every_ms: int) -> m.Refused:
    key = RequestKey(request_id, 1)
    return m.Refused(request=key, reason="full", never=False, retry_after_ms=every_ms)


def failed(instructions: list[Instruction]) -> list[str]:
    """Requests whose clients were told so."""
    return [i.request_id for i in instructions if isinstance(i, Failed)]


def test_nobody_is_refused_who_cannot_be_judged() -> None:
    """No worker has said anything yet."""
    assert Queue(0.001).refusal(1000) is None
    assert failed(crowded(0.001, every_ms=0).submit("s")) == []


def test_rates_of_all_workers_count_together() -> None:
    """Until a worker is gone, or has forgotten."""
    queue = Queue(1.0)
    queue.pace("a", 1000)
    assert queue.refusal(0) is None
    assert queue.refusal(1) is not None
    queue.pace("b", 1000)
    assert queue.refusal(1) is None
    queue.pace("b", 0)
    assert queue.refusal(1) is not None


def test_who_would_wait_too_long_is_refused_with_the_rest_of_the_time() -> None:
    """By its place in the queue; those before it go on waiting."""
    gateway = crowded(2.0)
    assert gateway.submit("s") == [Accepted("s", 4)]
    ended = gateway.submit("t")
    assert failed(ended) == ["t"]
    found = error(ended)
    assert (found.status, found.code) == (429, "overloaded")
    assert found.retry_after_s == pytest.approx(1.0)
    assert gateway.owner.num_waiting == 2


def test_who_was_let_in_to_wait_is_not_refused_later() -> None:
    """However slow things become."""
    gateway = crowded(2.0)
    gateway.submit("s")
    gateway.owner.room()
    again = gateway.owner.refused(
        "F",
        m.Refused(request=RequestKey("r", 2), reason="full", never=False, retry_after_ms=60_000),
    )
    assert failed(again) == [] and gateway.owner.num_waiting == 2


def test_a_request_refused_before_it_could_wait_lets_smaller_ones_try() -> None:
    """Nobody is to wait behind somebody who is not there."""
    gateway = Gateway(fused(), max_wait_s=1.0)
    gateway.submit()
    gateway.submit("s")
    assert failed(gateway.owner.refused("F", refusal("r", 5000))) == ["r"]
    assert gateway.owner.num_waiting == 0, "s was asked for at the same time"


def test_a_request_that_has_run_is_never_refused() -> None:
    """It was preempted: its client has tokens already."""
    gateway = Gateway(fused(), max_wait_s=0.5)
    gateway.submit()
    gateway.admitted("F")
    assert emitted(gateway.emits("F", run(0, 10))) == [10]
    again = gateway.failed("F", 429)
    assert [admit.request for _, admit in told(again, m.Admit)] == [RequestKey("r", 2)]
    refused = m.Refused(request=RequestKey("r", 2), reason="", never=False, retry_after_ms=9000)
    assert failed(gateway.owner.refused("F", refused)) == []
    assert gateway.owner.num_waiting == 1


def test_without_a_bound_everybody_waits() -> None:
    assert failed(crowded(math.inf, every_ms=10**9).submit("s")) == []
