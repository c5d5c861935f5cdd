"""What gateways ask of each other goes through a worker, and never waits in vain."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from epd.config import WireConfig
from epd.errors import TooLarge, Unavailable
from epd.wire.links import Buffer, Delivery
from epd.wire.messages import Forget, Found, Recall, Recalled
from epd.workers.gateways import Gateways
from epd.workers.recalls import Recalls
from epd.workers.relay import Relay

pytestmark = pytest.mark.anyio

WIRE = WireConfig(dead_after_s=0.05, max_message_bytes=5000)
KEPT = {("me", "resp_1_b"): b"said", ("me", "resp_2_b"): b"x" * 5000}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Links:
    """Hands what is sent to those who are there, at once."""

    def __init__(self, town: Town, name: str) -> None:
        self._town = town
        self._name = name

    def send(self, to: str, message: Any, frame: Buffer | None = None) -> bool:
        hear = self._town.ears.get(to)
        if hear is None:
            return False
        sent = None if frame is None else memoryview(frame)
        hear(Delivery(sender=self._name, incarnation="1", message=message, frame=sent))
        return True


class Town:
    """Gateways a and b, and workers that know the gateways that they are given."""

    def __init__(self, **workers: tuple[str, ...]) -> None:
        self.ears: dict[str, Any] = {}
        self.kept = dict(KEPT)
        for name, known in workers.items():
            gateways = Gateways()
            for gateway in known:
                gateways.welcome(gateway, "1", f"tcp://{gateway}", 0.0)
            links: Any = Links(self, name)
            self.ears[name] = Relay(links, gateways).pass_on
        self.a, self.b = (self._gateway(name, list(workers)) for name in ("a", "b"))
        self.b.answer_with(
            lambda owner, response_id: self.kept.get((owner, response_id)),
            lambda owner, response_id: self.kept.pop((owner, response_id), None) is not None,
        )

    def _gateway(self, name: str, workers: list[str]) -> Recalls:
        recalls = Recalls(name, Links(self, name).send, lambda: workers, WIRE)

        def hear(delivery: Delivery) -> None:
            asked = isinstance(delivery.message, Recall | Forget)
            (recalls.on_question if asked else recalls.on_recalled)(delivery)

        self.ears[name] = hear
        return recalls


async def test_what_another_gateway_keeps_comes_through_a_worker() -> None:
    town = Town(w=("a", "b"))
    assert await town.a.recall("b", "me", "resp_1_b") == b"said"
    assert await town.a.recall("b", "you", "resp_1_b") is None
    assert await town.b.recall("a", "me", "resp_1_b") is None


async def test_another_gateway_forgets_what_it_is_told_to() -> None:
    """Once, and of its owner only."""
    town = Town(v=("a",), w=("a", "b"))
    assert not await town.a.forget("b", "you", "resp_1_b")
    assert await town.a.forget("b", "me", "resp_1_b")
    assert not await town.a.forget("b", "me", "resp_1_b")
    assert await town.a.recall("b", "me", "resp_1_b") is None
    assert not await town.a.forget("c", "me", "resp_1_c")


async def test_several_questions_get_their_own_answers() -> None:
    town = Town(w=("a", "b"))
    asked = [town.a.recall("b", "me", f"resp_{n}_b") for n in (1, 3, 1)]
    assert await asyncio.gather(*asked) == [b"said", None, b"said"]


async def test_a_worker_that_does_not_know_the_gateway_is_not_the_last_word() -> None:
    assert await Town(v=("a",), w=("a", "b")).a.recall("b", "me", "resp_1_b") == b"said"


async def test_a_gateway_that_is_gone_is_told_at_once() -> None:
    town = Town(w=("a", "b"))
    del town.ears["b"]
    assert await town.a.recall("b", "me", "resp_1_b") is None
    assert await town.a.recall("c", "me", "resp_1_c") is None


async def test_a_gateway_that_says_nothing_is_not_waited_for_longer_than_a_dead_one() -> None:
    town = Town(w=("a", "b"))
    town.ears["b"] = lambda delivery: None
    with pytest.raises(Unavailable, match="does not answer"):
        await town.a.recall("b", "me", "resp_1_b")


async def test_without_workers_nobody_can_be_asked() -> None:
    with pytest.raises(Unavailable, match="no worker"):
        await Town().a.recall("b", "me", "resp_1_b")


async def test_what_no_message_can_hold_is_told_so() -> None:
    with pytest.raises(TooLarge, match="too large"):
        await Town(w=("a", "b")).a.recall("b", "me", "resp_2_b")


async def test_only_gateways_are_passed_on_to_and_from() -> None:
    """A worker cannot ask for what a gateway keeps, nor answer for one."""
    town = Town(w=("a", "b"), v=())
    heard: list[Delivery] = []
    town.ears["a"] = town.ears["b"] = heard.append
    question = Recall(gateway="b", asker="v", number=0, owner="me", response_id="resp_1_b")
    Links(town, "v").send("w", question)
    Links(town, "v").send("w", Recalled(asker="a", number=0, found=Found.KEPT), b"lie")
    assert heard == []
