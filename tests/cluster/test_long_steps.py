"""A step that lasts far longer than the dead are silent: nobody is declared dead."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.brittle import SECONDS, SLOW
from tests.cluster.clients import Asking, Question, ask
from tests.cluster.crew import Crew, ports
from tests.cluster.front import Front, eventually

pytestmark = [pytest.mark.alone, pytest.mark.slow]

DEAD_AFTER_S = 3.0
STEP_S = 4 * DEAD_AFTER_S

WORDS = Question((1,), "Hello there")
SLOW_WORDS = Question((1,), "Hello there", options=f'{{"seed": {SLOW}}}')


@pytest.fixture
def crew(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Crew]:
    """The worker that `request` names is the one with the long step."""
    monkeypatch.setenv(SECONDS, str(STEP_S))
    settings = (f"wire.dead_after_s={DEAD_AFTER_S}", "wire.heartbeat_s=0.2", "threads=1")
    found = Crew(path, tmp_path, *settings, port=ports())
    found.start("gateway-0")
    for name in ("encode-0", "prefill-0", "decode-0"):
        hurt = name == request.param
        found.start(name, module="tests.cluster.brittle" if hurt else "epd")
    yield found
    found.close()


@pytest.mark.parametrize("crew", ["prefill-0", "decode-0"], indirect=True)
def test_heartbeats_are_answered_while_a_step_lasts(crew: Crew) -> None:
    front: Front = crew.front("gateway-0")
    for name in ("encode-0", "prefill-0", "decode-0"):
        crew.hands[name].ready()
    right = ask(front, WORDS, stream=False)
    with Asking(front, SLOW_WORDS) as asking:
        eventually(lambda: longest_step(front) > 2000 * DEAD_AFTER_S, "the step lasts", 60.0)
    assert asking.outcome.complete and asking.outcome.text == right.text
    for name, hand in crew.hands.items():
        assert " lost " not in hand.log.read_text(), name
    front.wait_until_idle()


def longest_step(front: Front) -> float:
    """Milliseconds that some worker's running step has lasted."""
    samples = front.metrics()
    return max(value for name, value in samples.items() if "step_age_ms" in name)
