"""A worker of two ranks in a live cluster: its answers, and how it dies as one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

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
