"""Six hosts in network namespaces, started by `launch.multi_node`: CURVE, names by DNS, cut links.

What stands in for ssh runs the command in the host's namespace; everything else is as on machines.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from epd.cli.main import main as epd
from launch.multi_node.__main__ import main as multi_node
from tests.cluster.clients import Load, Question, ask
from tests.cluster.front import Front, eventually
from tests.cluster.running import data_url, picture
from tests.hosts import SWITCH, Hosts, why_not
from tests.names import NameServer
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
NAME_SERVER = "10.77.0.254"
SETTINGS = (
    "dtype=float32",
    "threads=1",
    "language.kv_tokens=16384",
    "wire.shm_bytes=0",
    "wire.heartbeat_s=0.2",
    "wire.dead_after_s=3",
    "gateway.host=0.0.0.0",
)
QUESTIONS = (
    Question((1,), "Hello there", max_tokens=400),
    Question((2, 3, 4), "Go on.", max_tokens=400),
    Question((), "Hello there", max_tokens=400),
)


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    if reason := why_not():
        pytest.skip(reason)
    found = Hosts(*ROLES)
    found.name_server(NAME_SERVER)
    yield found
    found.close()


@pytest.fixture(scope="module")
def names(hosts: Hosts) -> Iterator[NameServer]:
    table = {f"{name}.epd.test": (hosts.address(name),) for name in ROLES}
    table["gateways.epd.test"] = (hosts.address("front"),)
    with hosts.inside(SWITCH):
        server = NameServer(NAME_SERVER, table)
    yield server
    server.close()


@pytest.fixture(scope="module")
def file(
    path: Path, hosts: Hosts, names: NameServer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The hosts' file of the cluster, with its keys beside it."""
    folder = tmp_path_factory.mktemp("several")
    assert epd(["keys", str(folder / "keys")]) == 0
    ssh = folder / "ssh"
    within = " ".join(hosts.command("front")).replace("front", '"$1"')
    ssh.write_text(f'#!/bin/sh\ncd "{folder}/$1" && exec {within} sh -c "$2"\n')
    ssh.chmod(0o755)
    for name in ROLES:
        (folder / name).mkdir()
    tree = {
        "model": str(path),
        "settings": list(SETTINGS),
        "keys": "keys",
        "gateways": ["gateways.epd.test"],
        "ssh": [str(ssh)],
        "hosts": [
            {
                "host": name,
                "address": f"{name}.epd.test",
                "roles": roles,
                "env": {"PYTHONPATH": str(Path.cwd())},
            }
            for name, roles in ROLES.items()
        ],
        "python": sys.executable,
    }
    found = folder / "hosts.yaml"
    found.write_text(yaml.safe_dump(tree))
    return found


@pytest.fixture(scope="module")
def front(path: Path, hosts: Hosts, file: Path) -> Iterator[Front]:
    """The gateway as its clients see it; they are on its own host."""
    assert multi_node(["start", str(file)]) == 0
    yield Front(f"http://{hosts.address('front')}:8000", path.name)
    assert multi_node(["stop", str(file)]) == 0


def test_six_hosts_answer_as_one_does(
    front: Front, hosts: Hosts, names: NameServer, file: Path, reference: Reference
) -> None:
    image = picture(140, 112)
    content = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    _, new = reference.generate([{"role": "user", "content": content}], [image], 16)
    content[0] = {"type": "image_url", "image_url": {"url": data_url(image)}}  # type: ignore[dict-item]
    body = {
        "model": front.model,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 16,
        "temperature": 0,
    }
    with hosts.inside("front"):
        eventually(lambda: front.workers() == EVERY, "all workers take part")
        answer = front.post(body).json()
    text = reference.processor.tokenizer.decode(new, skip_special_tokens=True)
    assert answer["choices"][0]["message"]["content"] == text
    assert names.asked >= {"gateways.epd.test", "front.epd.test", "prompts.epd.test"}
    assert multi_node(["status", str(file)]) == 0


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
