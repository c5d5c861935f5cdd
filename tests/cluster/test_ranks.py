"""Workers of two ranks: what they say, what they hand over, and how they die."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.cluster.clients import Question
from tests.cluster.expected import Expected
from tests.cluster.running import Cluster, eventually

PICTURES = Question((1, 2), "what are these?", max_tokens=24)
WORDS = Question((), "tell me a story", max_tokens=24)


def said(cluster: Cluster, question: Question) -> str:
    body = question.body(cluster.model, stream=False)
    answer = httpx.post(f"{cluster.url}/v1/chat/completions", json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


def ranks(cluster: Cluster) -> list[psutil.Process]:
    children = psutil.Process(cluster.process.pid).children(recursive=True)
    return [child for child in children if " ".join(child.cmdline()).startswith("epd: rank ")]


@pytest.fixture(scope="module")
def alone(path: Path) -> Iterator[list[str]]:
    """What a cluster of one rank says."""
    cluster = Cluster(path, "EPD")
    yield [said(cluster, WORDS), said(cluster, PICTURES)]
    assert cluster.stop() == 0


@pytest.mark.parametrize(
    ("topology", "settings"),
    [
        ("EPD", ["placement.engine.tp=2"]),
        pytest.param("1E1P1D", ["placement.prefill.tp=2"], marks=pytest.mark.slow),
        pytest.param("1E1P1D", ["placement.decode.tp=2"], marks=pytest.mark.slow),
        pytest.param("1E1PD", ["placement.fused.tp=2"], marks=pytest.mark.slow),
    ],
)
def test_answers_are_those_of_one_rank(
    topology: str, settings: list[str], path: Path, alone: list[str]
) -> None:
    cluster = Cluster(path, topology, *settings)
    try:
        assert len(ranks(cluster)) == 1
        assert [said(cluster, WORDS), said(cluster, PICTURES)] == alone
    finally:
        assert cluster.stop() == 0
