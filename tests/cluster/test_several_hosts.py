"""Six hosts in network namespaces, started by `launch.multi_node`: CURVE, names by DNS, cut links.

What stands in for ssh runs the command in the host's namespace; everything else is as on machines.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from launch.multi_node.__main__ import main as multi_node
from tests.cluster.clients import Load, Question, ask
from tests.cluster.front import Front, eventually
from tests.cluster.several import Several, several
from tests.hosts import SWITCH, Hosts
from tests.reference import Reference
from tests.rough import RoughLink, Weather

pytestmark = [pytest.mark.slow, pytest.mark.alone]

ROLES = {
    "front": {"gateway": 1},
    "towers-a": {"encode": 1},
    "towers-b": {"encode": 1},
    "prompts": {"prefill": 1},
    "answers-a": {"decode": 1},
    "answers-b": {"decode": 1},
}
EVERY = {"encode-0", "encode-1", "prefill-0", "decode-0", "decode-1"}
QUESTIONS = (
    Question((1,), "Hello there", max_tokens=400),
    Question((2, 3, 4), "Go on.", max_tokens=400),
    Question((), "Hello there", max_tokens=400),
)


@pytest.fixture(scope="module")
def cluster(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Several]:
    with several(path, ROLES, tmp_path_factory.mktemp("several")) as found:
        yield found


@pytest.fixture(scope="module")
def hosts(cluster: Several) -> Hosts:
    return cluster.hosts


@pytest.fixture(scope="module")
def file(cluster: Several) -> Path:
    return cluster.file


@pytest.fixture(scope="module")
def front(cluster: Several) -> Front:
    return cluster.front


def test_six_hosts_answer_as_one_does(cluster: Several, reference: Reference) -> None:
    with cluster.hosts.inside("front"):
        eventually(lambda: cluster.front.workers() == EVERY, "all workers take part")
        cluster.answers_as(reference)
    wanted = {"gateways.epd.test", "front.epd.test", "prompts.epd.test"}
    assert cluster.names.asked >= wanted
    assert multi_node(["status", str(cluster.file)]) == 0


def test_a_stranger_without_the_keys_takes_no_part(front: Front, hosts: Hosts) -> None:
    """What the ports say to a plain socket is ZeroMQ's greeting, and nothing after it."""
    with hosts.inside("towers-a"), pytest.raises(httpx.TransportError):
        httpx.get(f"http://{hosts.address('front')}:7400/", timeout=2)


def test_a_host_that_is_cut_off_and_comes_back_costs_no_request(front: Front, hosts: Hosts) -> None:
    with hosts.inside("front"):
        right = {question: ask(front, question, stream=True).text for question in QUESTIONS}
        with Load(front, QUESTIONS, clients=3) as load:
            eventually(lambda: load.streaming, "a stream has begun")
            hosts.cut_off("answers-b")
            eventually(lambda: front.workers() == EVERY - {"decode-1"}, "it is missed", 60.0)
            hosts.rejoin("answers-b")
            eventually(lambda: front.workers() == EVERY, "it is back", 60.0)
        wrong = [o for o in load.outcomes if not o.complete or o.text != right[o.question]]
        assert load.outcomes and wrong == []
        front.wait_until_idle()


def test_a_rolling_restart_costs_no_request(front: Front, hosts: Hosts, file: Path) -> None:
    with hosts.inside("front"):
        right = {question: ask(front, question, stream=True).text for question in QUESTIONS}
        with Load(front, QUESTIONS, clients=3) as load:
            eventually(lambda: load.streaming, "a stream has begun")
            code = multi_node(["restart", str(file), "encode-0", "encode-1", "decode-0"])
        wrong = [o for o in load.outcomes if not o.complete or o.text != right[o.question]]
    assert code == 0
    assert load.outcomes and wrong == []


@contextmanager
def rough(hosts: Hosts, name: str, weather: Weather) -> Iterator[RoughLink]:
    devices = hosts.detour(name)
    try:
        with hosts.inside(SWITCH):
            link = RoughLink(devices, weather, seed=1)
    except OSError as error:
        hosts.rejoin(name)
        pytest.skip(f"no packet sockets with the header of virtio-net: {error}")
    try:
        yield link
    finally:
        link.close()
        hosts.rejoin(name)


def test_a_link_that_delays_loses_and_reorders_changes_no_word(front: Front, hosts: Hosts) -> None:
    with hosts.inside("front"):
        right = {question: ask(front, question, stream=True).text for question in QUESTIONS}
        fresh = tuple(Question(q.pictures, q.words, max_tokens=399) for q in QUESTIONS)
        with rough(hosts, "prompts", Weather(delay_s=0.01, loss=0.01, late=0.05)) as link:
            outcomes = [ask(front, question, stream=True) for question in fresh]
        front.wait_until_idle()
    assert link.lost and link.late and link.passed
    for outcome, question in zip(outcomes, QUESTIONS, strict=True):
        assert outcome.complete and right[question].startswith(outcome.text), outcome
