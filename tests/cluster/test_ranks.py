"""A worker of two ranks in a live cluster: its answers, and how it dies as one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from epd.transfer.segments import FOLDER
from tests.cluster.clients import Load, Question, ask, check_answer
from tests.cluster.running import Cluster, eventually

QUESTIONS = (Question((1,), "Hello there"), Question((), "Hello there"))


def ranks(cluster: Cluster) -> list[psutil.Process]:
    """The processes of ranks that follow."""
    children = psutil.Process(cluster.process.pid).children(recursive=True)
    return [child for child in children if " ".join(child.cmdline()).startswith("epd: rank ")]


@pytest.fixture(scope="module")
def cluster(path: Path) -> Iterator[Cluster]:
    """KV goes from two ranks to one."""
    running = Cluster(path, "1E1P1D", "placement.decode.tp=2")
    yield running
    assert running.stop() == 0


@pytest.mark.parametrize("leads", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_rank_that_is_killed_takes_its_worker_along_and_both_come_back(
    cluster: Cluster, leads: bool
) -> None:
    """In the middle of streams: each ends with its right answer or with an error, none hangs."""
    right = {question: ask(cluster, question, stream=True).text for question in QUESTIONS}
    [follower] = ranks(cluster)
    both = [follower, psutil.Process(follower.ppid())]
    with Load(cluster, QUESTIONS, 3) as load:
        eventually(lambda: load.streaming, "a stream has begun")
        both[leads].kill()
        gone, alive = psutil.wait_procs(both, timeout=30)
        assert len(gone) == 2, alive
        eventually(lambda: len(ranks(cluster)) == 1, "a new rank", 120)
        eventually(lambda: "decode-0" in cluster.workers(), "a new worker", 120)
    for outcome in load.outcomes:
        check_answer(outcome, right)
    for question, text in right.items():
        assert ask(cluster, question, stream=True).text == text


@pytest.fixture(scope="module", params=["shared memory", "frames"])
def way(request: pytest.FixtureRequest) -> str:
    """How KV goes."""
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def pairs(path: Path, way: str) -> Iterator[Cluster]:
    """KV goes from each of two ranks to one of two."""
    off = ("wire.shm_bytes=0",) if way == "frames" else ()
    running = Cluster(path, "1E2P2D", "placement.prefill.tp=2", "placement.decode.tp=2", *off)
    yield running
    assert running.stop() == 0


def total(cluster: Cluster, gauge: str) -> float:
    """Of all workers."""
    samples = cluster.metrics().items()
    return sum(value for name, value in samples if name.startswith(f"epd_worker_{gauge}{{"))


def test_ranks_hand_over_to_ranks_and_say_what_one_says(
    pairs: Cluster, way: str, cluster: Cluster
) -> None:
    """What two ranks that hand over through the first of them say; `/cluster` shows the way, and
    what the second ranks counted themselves that half of all bytes went it."""
    told = httpx.get(f"{pairs.url}/cluster", timeout=30).json()
    ways = {worker["name"]: worker["transfers"] for worker in told["workers"]}
    own = f"{way}, 2 ranks each their own"
    assert ways["prefill-0"] == ways["prefill-1"] == {"decode-0": own, "decode-1": own}
    for question in QUESTIONS:
        assert ask(pairs, question, stream=True).text == ask(cluster, question, stream=True).text
    pairs.wait_until_idle()
    half = total(pairs, "kv_bytes_sent") / 2
    assert total(pairs, "rank_bytes_taken") == half > 0
    assert total(pairs, "rank_bytes_sent") == (half if way == "frames" else 0)
    assert total(cluster, "kv_bytes_sent") > total(cluster, "rank_bytes_taken") == 0


@pytest.mark.alone
@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_a_rank_that_is_killed_in_the_middle_of_hand_offs_loses_no_request(
    pairs: Cluster, role: str
) -> None:
    """Another worker goes on with each; nothing is held afterwards, no memory stays behind."""
    right = {question: ask(pairs, question, stream=True).text for question in QUESTIONS}
    segments = len(list(FOLDER.glob("epd-*")))
    [follower] = [r for r in ranks(pairs) if f"of {role}-0" in " ".join(r.cmdline())]
    with Load(pairs, QUESTIONS, 3) as load:
        eventually(lambda: load.streaming, "a stream has begun")
        follower.kill()
        eventually(lambda: not follower.is_running() and len(ranks(pairs)) == 4, "new ranks", 120)
        eventually(lambda: f"{role}-0" in pairs.workers(), "a new worker", 120)
    for outcome in load.outcomes:
        assert outcome.complete, outcome
        check_answer(outcome, right)
    pairs.wait_until_idle()
    assert len(list(FOLDER.glob("epd-*"))) <= segments
