"""Two gateways over one engine: a response of one is gone on with at the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError, InternalServerError, NotFoundError
from openai.resources.responses import Responses

from tests.cluster.crew import Crew, ports
from tests.cluster.front import eventually

pytestmark = pytest.mark.alone

ASK: dict[str, Any] = {"model": "tiny", "max_output_tokens": 8, "temperature": 0}


@pytest.fixture(scope="module")
def crew(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    settings = ("wire.dead_after_s=8", "threads=1")
    crew = Crew(path, tmp_path_factory.mktemp("kept"), *settings, port=ports())
    for name in ("gateway-0", "gateway-1"):
        crew.start(name)
    crew.start("engine-0", "listen=tcp://127.0.0.1")  # its two seats listen each for itself
    yield crew
    crew.close()


def test_a_response_is_gone_on_with_at_any_gateway_while_its_own_runs(crew: Crew) -> None:
    """The other one asks for it through the engine, which also tells it what to forget; restarted,
    its own has forgotten it."""
    fronts = [crew.front(name) for name in ("gateway-0", "gateway-1")]
    crew.hands["engine-0"].ready()
    for front in fronts:
        eventually(front.workers, "the engine is known")
    with ExitStack() as clients:
        here, there = (clients.enter_context(front.client()).responses for front in fronts)
        one, lost = (here.create(input=text, **ASK) for text in ("Hello", "Bye"))
        again = [
            each.create(input="Go on.", previous_response_id=one.id, **ASK)
            for each in (here, there)
        ]
        assert again[0].output_text == again[1].output_text
        gone = there.create(input="Hm", **ASK).id
        assert here.retrieve(gone).id == gone
        here.delete(gone)
        for each in (here, there):
            with pytest.raises(NotFoundError):
                each.retrieve(gone)
        crew.again("gateway-0").ready()
        assert there.retrieve(one.id).output_text == one.output_text
        with pytest.raises(BadRequestError) as caught:
            eventually(lambda: goes_on(there, lost.id), "the gateway is heard of")
        assert caught.value.code == "previous_response_not_found"
        assert crew.tracebacks() == []


def goes_on(responses: Responses, response_id: str) -> bool:
    """Not while its gateway does not answer."""
    try:
        responses.create(input="Go on.", previous_response_id=response_id, **ASK)
    except InternalServerError:
        return False
    return True
