"""A request that kills every worker that runs it: two deaths, then it fails alone, by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.brittle import DEADLY
from tests.cluster.clients import Load, Question, ask
from tests.cluster.crew import Crew, ports
from tests.cluster.front import Front, eventually

pytestmark = [pytest.mark.alone, pytest.mark.slow]

STAGES = ("encode", "prefill", "decode")
POISON = Question((1,), "Hello there", options=f'{{"seed": {DEADLY}}}')
QUESTIONS = (
    Question((1,), "Hello there"),
    Question((2, 3), "Go on."),
    Question((), "Hello there"),
)


@pytest.fixture
def crew(path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Crew]:
    """Three workers of the stage that the poison hurts, one of each other."""
    settings = ("wire.dead_after_s=8", "wire.heartbeat_s=0.2", "threads=1")
    found = Crew(path, tmp_path, *settings, port=ports())
    found.start("gateway-0")
    for stage in STAGES:
        hurt = stage == request.param
        for number in range(3 if hurt else 1):
            found.start(f"{stage}-{number}", module="tests.cluster.brittle" if hurt else "epd")
    yield found
    found.close()


@pytest.mark.parametrize("crew", ["prefill", "decode"], indirect=True)
def test_a_request_that_kills_its_workers_fails_alone_after_two(crew: Crew) -> None:
    front: Front = crew.front("gateway-0")
    workers = {name: hand for name, hand in crew.hands.items() if name != "gateway-0"}
    for hand in workers.values():
        hand.ready()
    right = {question: ask(front, question, stream=True).text for question in QUESTIONS}
    with Load(front, QUESTIONS, clients=4) as load:
        eventually(lambda: load.streaming, "a stream has begun")
        poisoned = ask(front, POISON, stream=False)
    assert poisoned.status == 500 and poisoned.error is not None, poisoned
    assert "two workers died with this request" in poisoned.error["message"]
    wrong = [o for o in load.outcomes if not o.complete or o.text != right[o.question]]
    assert wrong == []
    for question in QUESTIONS:
        assert ask(front, question, stream=False).text == right[question]
    assert sum(hand.process.poll() is not None for hand in workers.values()) == 2
    front.wait_until_idle()
