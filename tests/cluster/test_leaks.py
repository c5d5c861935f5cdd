"""After many requests, good, bad and left by their clients, nobody holds anything any more."""

from __future__ import annotations

import http.client
import json
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.cluster.clients import Asking, Outcome, Question, ask
from tests.cluster.running import Cluster, eventually
from tests.cluster.slow_site import slow_site
from tests.cluster.traces import children_of
from tests.media.site import Site

pytestmark = pytest.mark.alone

CLIENTS = 6
WORDS = ("Hello there", "Describe", "Go on.")
OPTIONS = (
    "{}",
    '{"temperature": 1.2, "seed": 3, "min_p": 0.02, "top_k": 40}',
    '{"n": 3, "temperature": 1.0, "seed": 4}',
    '{"presence_penalty": 0.7, "frequency_penalty": 0.3, "logit_bias": {"70": 2.0}}',
    '{"logprobs": true, "top_logprobs": 2, "prompt_logprobs": 1}',
    '{"stop": ["e", "qu"], "min_tokens": 3}',
    '{"cache_salt": "mine", "ignore_eos": true}',
)
LONG = 400
LONG_QUESTION = Question((1,), "Which is larger, and why is that so?", max_tokens=900)

TRIES = 20
SLOW_SITES = ("media.allow_private_addresses=true", "media.image.timeout_s=120")
PRESSED = ("language.kv_tokens=1024", "language.max_step_tokens=64", "wire.shm_bytes=1048576")

Left = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Plan:
    """One request, and when its client leaves, if it does."""

    question: Question
    stream: bool
    leaves: str = ""


def plans(site: Site, num_requests: int) -> list[Plan]:
    """A third is left by its client, one in ten is bad."""
    rng = random.Random(11)
    found = []
    for number in range(num_requests):
        seeds = tuple(rng.sample(range(6), rng.randrange(4)))
        question = Question(seeds, rng.choice(WORDS), max_tokens=24, options=rng.choice(OPTIONS))
        plan = Plan(question, stream=number % 2 == 0)
        if number % 3 == 0:
            plan = leaving(plan, number // 3, site)
        elif number % 10 == 1:
            plan = replace(plan, question=replace(question, url="http://127.0.0.1:1/"))
        found.append(plan)
    rng.shuffle(found)
    return found


def leaving(plan: Plan, number: int, site: Site) -> Plan:
    """Some while their item is fetched from a site that does not answer."""
    long = replace(plan.question, max_tokens=LONG)
    match number % 3 if number < 30 else number % 2:
        case 0:
            return replace(plan, question=long, leaves="at once")
        case 1:
            return Plan(long, stream=True, leaves="after the first token")
        case _:
            slow = replace(long, url=f"{site.url}/slow.png?{number}")
            return replace(plan, question=slow, leaves="during the fetch")


def leave(cluster: Cluster, plan: Plan, site: Site) -> None:
    """Ask and close the connection before the answer is there."""
    address = urlsplit(cluster.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    body = json.dumps(plan.question.body(cluster.model, stream=plan.stream))
    connection.request("POST", "/v1/chat/completions", body)
    if plan.leaves == "after the first token":
        assert connection.getresponse().readline().startswith(b"data: ")
    elif plan.leaves == "during the fetch":
        path = (plan.question.url or "").removeprefix(site.url)
        eventually(lambda: path in [seen for seen, _ in site.seen], "the worker fetches")
    connection.close()


def play(cluster: Cluster, plan: Plan, site: Site) -> Outcome | None:
    if plan.leaves:
        leave(cluster, plan, site)
        return None
    return ask(cluster, plan.question, stream=plan.stream)


def check(outcomes: list[Outcome]) -> None:
    """Nobody is hurt by what became of the others: one question, one answer."""
    answers: dict[Question, str] = {}
    for outcome in outcomes:
        if outcome.question.url is None:
            assert outcome.complete, outcome
            assert answers.setdefault(outcome.question, outcome.text) == outcome.text
        else:
            assert outcome.status == 422
            assert outcome.error is not None
            assert "could not connect" in outcome.error["message"]


def open_files(cluster: Cluster) -> dict[Left, int]:
    """Descriptors of each process."""
    found = {}
    for child in children_of(cluster.process.pid):
        found[" ".join(child.cmdline()).strip(), child.pid] = child.num_fds()
    return found


def no_more(now: dict[Left, int], before: dict[Left, int]) -> bool:
    """The same processes with as few files, or fewer: a client's idle connection may have ended."""
    return now.keys() == before.keys() and all(now[key] <= before[key] for key in now)


@pytest.fixture
def release() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def check_shows(cluster: Cluster) -> None:
    """What is held for a request can be seen while it runs, if that is not too short."""
    for _ in range(TRIES):
        with Asking(cluster, LONG_QUESTION) as asking:
            while not asking.outcome.ended_at:
                shown = " ".join(cluster.in_use())
                if "epd_live_requests" in shown and "epd_worker_kv_blocks_used" in shown:
                    return
    raise AssertionError("a request ran and nothing was in use")


def check_nothing_leaks(
    path: Path, topology: str, release: threading.Event, num_requests: int, *settings: str
) -> None:
    """The same load twice: what stays after the first round is there once, as attached memory is;
    what would stay after the second is a leak."""
    cluster = Cluster(path, topology, "wire.heartbeat_s=0.1", *SLOW_SITES, *settings)
    try:
        check_shows(cluster)
        play_round(cluster, release, num_requests)
        files = open_files(cluster)
        release.clear()
        play_round(cluster, release, num_requests)
        eventually(lambda: no_more(open_files(cluster), files), f"as few files as before: {files}")
        assert cluster.in_use() == {}
    finally:
        code = cluster.stop()
    assert code == 0


def play_round(cluster: Cluster, release: threading.Event, num_requests: int) -> None:
    with slow_site(release) as site:
        with ThreadPoolExecutor(CLIENTS) as pool:
            planned = plans(site, num_requests)
            played = list(pool.map(lambda p: play(cluster, p, site), planned))
        check([outcome for outcome in played if outcome is not None])
        hanging = sum("slow" in path for path, _ in site.seen)
        assert hanging == sum(plan.leaves == "during the fetch" for plan in planned)
        cluster.wait_until_idle()  # a fetch ends with its client, whether its site answers or not
        release.set()


@pytest.mark.parametrize("topology", ["1E1P1D", pytest.param("EPD", marks=pytest.mark.slow)])
def test_everything_is_given_back(path: Path, topology: str, release: threading.Event) -> None:
    check_nothing_leaks(path, topology, release, 54)


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["1E1PD", "2E2P2D"])
@pytest.mark.parametrize("settings", [(), PRESSED], ids=["roomy", "pressed"])
def test_everything_is_given_back_in_every_topology(
    path: Path, topology: str, release: threading.Event, settings: tuple[str, ...]
) -> None:
    """Five hundred requests, twice; where memory is short many of them are preempted."""
    check_nothing_leaks(path, topology, release, 504, *settings)
