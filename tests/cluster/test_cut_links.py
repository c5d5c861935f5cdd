"""The link between two hosts is cut while both still reach the gateway: packets are just gone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.clients import Load, Question, ask
from tests.cluster.crew import Crew
from tests.cluster.front import Front, eventually
from tests.hosts import Hosts, why_not

pytestmark = pytest.mark.alone

DEAD_AFTER_S = 2.0
QUESTIONS = (
    Question((1,), "Hello there"),
    Question((2, 3, 4), "Go on."),
    Question((), "Hello there"),
    Question((5, 6), "Describe"),
)
WORKERS = {"encode-0": "x", "prefill-0": "x", "decode-0": "x", "encode-1": "y", "decode-1": "y"}


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    if reason := why_not():
        pytest.skip(reason)
    found = Hosts("g", "x", "y")
    yield found
    found.close()


@pytest.fixture
def crew(path: Path, tmp_path: Path, hosts: Hosts) -> Iterator[Crew]:
    settings = ("wire.insecure=true", "wire.shm_bytes=0", f"wire.dead_after_s={DEAD_AFTER_S}")
    found = Crew(path, tmp_path, *settings, "wire.heartbeat_s=0.2", port=7400, hosts=hosts)
    yield found
    found.close()


@pytest.fixture
def front(crew: Crew) -> Front:
    crew.start("gateway-0", on="g")
    front = crew.front("gateway-0")
    for name, host in WORKERS.items():
        crew.start(name, on=host)
    for name in WORKERS:
        crew.hands[name].ready()
    return front


def lost(crew: Crew) -> set[str]:
    """Whom prefill has lost."""
    return set(re.findall(r"peer lost name=(\S+)", crew.hands["prefill-0"].log.read_text()))


@pytest.mark.slow
def test_a_cut_link_between_two_workers_loses_no_request(
    front: Front, crew: Crew, hosts: Hosts
) -> None:
    """Prefill reaches neither the second encoder nor the second decode worker any more.

    Both look well to the gateway, so requests are placed there, and placed again. When the link is
    healed, and the others are gone, they serve once more.
    """
    with hosts.inside("g"):
        right = {question: ask(front, question, stream=True).text for question in QUESTIONS}
        with Load(front, QUESTIONS, clients=4) as load:
            eventually(lambda: load.streaming, "a stream has begun")
            hosts.cut("x", "y")
            eventually(lambda: lost(crew) >= {"encode-1", "decode-1"}, "the cut is noticed", 60.0)
            so_many = len(load.outcomes) + 4
            eventually(lambda: len(load.outcomes) > so_many, "requests go on", 60.0)
        assert [o for o in load.outcomes if not o.complete or o.text != right[o.question]] == []
        hosts.heal("x", "y")
        crew.kill("decode-0")
        crew.kill("encode-0")
        others = {"encode-1", "decode-1", "prefill-0"}
        eventually(lambda: front.workers() == others, "the dead are seen to be dead")
        for question in QUESTIONS:
            outcome = ask(front, question, stream=False)
            assert outcome.complete and outcome.text == right[question], outcome
        front.wait_until_idle()
    assert crew.tracebacks() == []
