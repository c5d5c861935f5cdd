"""Processes that are really killed or frozen while requests run: never a hang, never a wrong word.

One cluster per topology is hurt again and again, and after each time it must answer as if nothing
had happened and hold nothing.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.cluster.clients import Asking, Load, Outcome, Question, ask, check_answer
from tests.cluster.ends import check_orphans_end, check_stops_while_requests_run
from tests.cluster.running import Cluster, eventually
from tests.cluster.slow_site import slow_site
from tests.cluster.traces import Traces, children_of, runtime_base, segments_of

pytestmark = pytest.mark.alone

DEAD_AFTER_S = 2.0
SECONDS = 10.0  # "within seconds", on a machine that is busy starting a worker again
RESTART_S = 120.0
CLIENTS = 6

QUESTIONS = (
    Question((1,), "Hello there"),
    Question((2, 3, 4), "Go on."),
    Question((), "Hello there"),
    Question((5, 6), "Describe"),
    Question((7,), "What is it?"),
)
"""Their answers have 98 to 172 tokens."""

PLACED_AGAIN = 'epd_retries_total{what="request"}'
LEAST_ENTRIES = 100
FORM = {
    "type": "array",
    "items": {"enum": ["yes", "no", True, None]},
    "minItems": LEAST_ENTRIES,
    "maxItems": 2 * LEAST_ENTRIES,
}
IN_A_FORM = tuple(
    Question(
        (1,) * (seed % 2),
        "Say.",
        options=json.dumps(
            {
                "seed": seed,
                "temperature": 1.5,
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "said", "schema": FORM},
                },
            }
        ),
    )
    for seed in range(3)
)
"""Sampled, in JSON."""

Answers = dict[Question, str]


class Victim:
    """A cluster to be hurt, what it answers when it is not, and its traces."""

    def __init__(self, cluster: Cluster, workers: str, base: Path) -> None:
        self.cluster = cluster
        self.base = base
        self.workers = set(workers.split())
        self.right: Answers = {}
        for question in QUESTIONS:
            outcome = ask(cluster, question, stream=True)
            assert outcome.complete, outcome
            self.right[question] = outcome.text

    @contextmanager
    def under_load(self) -> Iterator[Load]:
        """Clients ask; the block begins when answers are on their way."""
        with Load(self.cluster, QUESTIONS, CLIENTS) as load:
            eventually(lambda: load.streaming, "a stream has begun")
            yield load

    @property
    def traces(self) -> Traces:
        """What it has on the machine now."""
        return Traces.of(self.cluster.process.pid, self.base)

    def check_recovered(self, timeout_s: float = RESTART_S) -> None:
        """All workers are back, answers are the same as ever, and nothing is held."""

        def whole() -> bool:
            try:
                return self.cluster.workers() == self.workers
            except httpx.TransportError:  # the gateway is not back yet
                return False

        eventually(whole, f"workers {self.workers} are back", timeout_s)
        for question in QUESTIONS[:2]:
            outcome = ask(self.cluster, question, stream=False)
            assert outcome.complete, outcome
            assert outcome.text == self.right[question]
        self.cluster.wait_until_idle()
        assert not [line for line in self.cluster.log if "raceback" in line]


@contextmanager
def victim(path: Path, topology: str, workers: str) -> Iterator[Victim]:
    with runtime_base() as base:
        cluster = Cluster(
            path,
            topology,
            f"wire.dead_after_s={DEAD_AFTER_S}",
            "wire.heartbeat_s=0.2",
            "media.allow_private_addresses=true",
            "media.image.timeout_s=60",
            "serve.max_restarts=50",
            env={"XDG_RUNTIME_DIR": str(base)},
        )
        try:
            yield Victim(cluster, workers, base)
        finally:
            cluster.process.kill()  # its last test has stopped it
            cluster.stop()


@pytest.fixture(scope="module")
def split(path: Path) -> Iterator[Victim]:
    with victim(path, "1E1P1D", "encode-0 prefill-0 decode-0") as found:
        yield found


@pytest.fixture(scope="module")
def monolith(path: Path) -> Iterator[Victim]:
    with victim(path, "EPD", "engine-0 engine-0.encode") as found:
        yield found


@pytest.fixture(scope="module")
def doubled(path: Path) -> Iterator[Victim]:
    names = "encode-0 encode-1 prefill-0 prefill-1 decode-0 decode-1"
    with victim(path, "2E2P2D", names) as found:
        yield found


def check_ended(outcomes: list[Outcome], right: Answers, since: float) -> None:
    """No request hangs: it has its full right answer, or a clear error within seconds."""
    for outcome in outcomes:
        assert outcome.complete or outcome.ended_at - since < SECONDS, outcome
        check_answer(outcome, right)


def kill_under_load(victim: Victim, role: str) -> list[Outcome]:
    """kill -9 while answers are on their way; what became of the requests."""
    with victim.under_load() as load:
        victim.cluster.kill(role)
        killed = time.monotonic()
    check_ended(load.outcomes, victim.right, killed)
    victim.check_recovered()
    return load.outcomes


def test_every_process_says_in_its_command_line_who_it_is(split: Victim) -> None:
    pid = split.cluster.process.pid
    titles = {" ".join(child.cmdline()).strip() for child in children_of(pid)}
    name = split.cluster.model
    assert titles == {
        f"epd: gateway gateway-0 ({name})",
        f"epd: encode encode-0 ({name})",
        "epd: decoder",
        f"epd: prefill prefill-0 ({name})",
        f"epd: decode decode-0 ({name})",
    }


def test_a_killed_encode_worker_costs_the_requests_whose_items_it_has(split: Victim) -> None:
    """One is certainly there: its picture is being fetched. Nobody else can encode it."""
    segments = segments_of([split.cluster.child("encode")])
    with slow_site() as site:
        question = Question((), "What is it?", url=f"{site.url}/slow.png")
        with Asking(split.cluster, question) as asking:
            eventually(lambda: site.seen, "the encode worker fetches")
            asked = time.monotonic()
            kill_under_load(split, "encode")
    check_answer(asking.outcome, {question: ""})
    assert not asking.outcome.complete
    assert asking.outcome.ended_at - asked < 2 * SECONDS
    assert segments and not [path for path in segments if path.exists()]


def test_a_killed_prefill_worker_costs_the_requests_that_decode_has_not_taken_over(
    split: Victim,
) -> None:
    segments = segments_of([split.cluster.child("prefill")])
    kill_under_load(split, "prefill")
    assert segments and not [path for path in segments if path.exists()]


def test_a_killed_decode_worker_ends_its_requests_with_503(split: Victim) -> None:
    outcomes = kill_under_load(split, "decode")
    assert any(not outcome.complete for outcome in outcomes)


def test_a_killed_engine_ends_its_requests_with_503(monolith: Victim) -> None:
    outcomes = kill_under_load(monolith, "engine")
    assert any(not outcome.complete for outcome in outcomes)


@pytest.mark.slow
@pytest.mark.parametrize("role", ["encode", "prefill", "decode"])
def test_where_there_is_another_worker_no_request_is_lost(doubled: Victim, role: str) -> None:
    """The gateway places them again: a pause, no error, and not a word is different."""
    outcomes = kill_under_load(doubled, role)
    assert all(outcome.complete for outcome in outcomes)


@pytest.mark.slow
def test_an_answer_keeps_its_form_where_the_decode_worker_dies_under_it(doubled: Victim) -> None:
    """The grammar's state is built again of the tokens: JSON as if nothing had been, and as valid.

    Sampled, so that a token that the grammar would have forbidden shows.
    """
    right = {question: ask(doubled.cluster, question, stream=True).text for question in IN_A_FORM}
    before = doubled.cluster.metrics()[PLACED_AGAIN]
    with Load(doubled.cluster, IN_A_FORM, CLIENTS) as load:
        eventually(lambda: len(begun(load.outcomes)) == CLIENTS // 2, "all streams have begun")
        doubled.cluster.kill("decode")
        assert begun(load.outcomes)
    assert doubled.cluster.metrics()[PLACED_AGAIN] > before
    for outcome in load.outcomes:
        assert outcome.complete, outcome
        assert outcome.text == right[outcome.question]
        assert len(json.loads(outcome.text)) >= LEAST_ENTRIES
    doubled.check_recovered()


def begun(outcomes: list[Outcome]) -> list[Outcome]:
    """Streams in the middle of their answers."""
    return [o for o in outcomes if o.stream and o.first_token.is_set() and not o.ended_at]


def test_a_frozen_decode_worker_is_declared_dead(split: Victim) -> None:
    """Its connections stay open, so only the missing heartbeats tell."""
    worker = split.cluster.child("decode")
    with split.under_load() as load:
        worker.suspend()
        frozen = time.monotonic()
    try:
        check_ended(load.outcomes, split.right, frozen + DEAD_AFTER_S)
        assert any(not outcome.complete for outcome in load.outcomes)
    finally:
        worker.resume()
    split.check_recovered()
    assert worker.is_running()


def stand_still(processes: Sequence[psutil.Process]) -> None:
    """For longer than the dead are silent."""
    for process in processes:
        process.suspend()
    threading.Event().wait(2 * DEAD_AFTER_S)
    for process in processes:
        process.resume()


def test_a_gateway_that_stood_still_loses_no_request(split: Victim) -> None:
    """Its workers took it for dead and gave back all they held for it. It asks them again."""
    with split.under_load() as load:
        stand_still([split.cluster.child("gateway")])
    assert [outcome for outcome in load.outcomes if not outcome.complete] == []
    check_ended(load.outcomes, split.right, time.monotonic())
    split.check_recovered()


def test_a_cluster_that_stood_still_loses_no_request(split: Victim) -> None:
    """As when its machine is paused: everybody was silent, and nobody is dead."""
    with split.under_load() as load:
        stand_still(children_of(split.cluster.process.pid))
    assert [outcome for outcome in load.outcomes if not outcome.complete] == []
    check_ended(load.outcomes, split.right, time.monotonic())
    split.check_recovered()


def test_a_killed_gateway_comes_back_at_the_same_address(split: Victim) -> None:
    """Its clients' connections break; the workers give back what they held for it."""
    with split.under_load() as load:
        split.cluster.kill("gateway")
        killed = time.monotonic()
    for outcome in load.outcomes:
        assert outcome.complete or (outcome.cut and outcome.ended_at - killed < SECONDS)
        assert split.right[outcome.question].startswith(outcome.text.rstrip("\ufffd"))
    split.check_recovered()


# ---- the ends, which must come last


def test_ctrl_c_stops_everything_while_requests_run(split: Victim) -> None:
    check_stops_while_requests_run(split.cluster, split.traces, signal.SIGINT)


def test_children_of_a_killed_supervisor_end_by_themselves(monolith: Victim) -> None:
    check_orphans_end(monolith.cluster, monolith.traces)


@pytest.mark.slow
def test_twice_as_many_workers_are_stopped_too(doubled: Victim) -> None:
    check_stops_while_requests_run(doubled.cluster, doubled.traces, signal.SIGTERM)
