"""Orders to the cluster over HTTP: from whom they are taken."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from epd.config import GatewayConfig, MediaConfig
from epd.gateway import Front, create_app
from epd.models.spec import Checkpoint
from tests.gateway.conftest import Serve
from tests.gateway.scripted import ScriptedService

pytestmark = pytest.mark.anyio

ORDER = {"worker": "decode-0", "seconds": 2.5}


async def ordered(
    checkpoint: Checkpoint, host: str = "127.0.0.1", key: str = "", **request: Any
) -> tuple[int, list[tuple[str, float | None]]]:
    """The status, and the orders that reached the cluster."""
    service = ScriptedService()
    front = Front(checkpoint, GatewayConfig(admin_key=key), MediaConfig())
    transport = httpx.ASGITransport(create_app(service, front), client=(host, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://epd") as client:
        answer = await client.post("/cluster/drain", **({"json": ORDER} | request))
    front.close()
    return answer.status_code, service.orders


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_this_machine_may_drain_a_worker(checkpoint: Checkpoint, host: str) -> None:
    assert await ordered(checkpoint, host) == (200, [("decode-0", 2.5)])


@pytest.mark.parametrize("host", ["10.0.0.7", "2001:db8::1", "nonsense"])
async def test_others_may_not(checkpoint: Checkpoint, host: str) -> None:
    assert await ordered(checkpoint, host) == (403, [])


@pytest.mark.parametrize(
    "headers",
    [{"origin": "http://evil.example"}, {"x-forwarded-for": "127.0.0.1"}, {"forwarded": "for=x"}],
)
async def test_nor_may_pages_and_proxies_on_this_machine(
    checkpoint: Checkpoint, headers: dict[str, str]
) -> None:
    assert await ordered(checkpoint, headers=headers) == (403, [])


async def test_a_form_of_some_web_page_is_no_order(checkpoint: Checkpoint) -> None:
    plain: dict[str, Any] = {
        "json": None,
        "content": b'{"worker": "D"}',
        "headers": {"content-type": "text/plain"},
    }
    assert await ordered(checkpoint, **plain) == (400, [])


@pytest.mark.parametrize(
    ("headers", "status"),
    [({}, 403), ({"authorization": "Bearer no"}, 403), ({"authorization": "Bearer k"}, 200)],
)
@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.7"])
async def test_where_there_is_a_key_it_alone_counts(
    checkpoint: Checkpoint, host: str, headers: dict[str, str], status: int
) -> None:
    found, orders = await ordered(checkpoint, host, "k", headers=headers)
    assert (found, len(orders)) == (status, int(status == 200))


@pytest.mark.parametrize("order", [{}, {"worker": ""}, {"worker": "D", "seconds": -1}, {"x": 1}, 3])
async def test_an_order_that_makes_no_sense_is_refused(checkpoint: Checkpoint, order: Any) -> None:
    assert await ordered(checkpoint, json=order) == (400, [])


async def test_an_endless_order_is_cut_off(checkpoint: Checkpoint) -> None:
    assert await ordered(checkpoint, json={"worker": "D" * 9999}) == (413, [])


async def test_the_cluster_is_shown(serve: Serve) -> None:
    async with serve(ScriptedService()) as client:
        assert (await client.get("/cluster")).json() == {"workers": [{"name": "P"}]}
        assert (await client.get("/cluster/requests/chatcmpl-r9")).status_code == 404


async def test_the_last_requests_are_shown_to_an_operator_only(serve: Serve) -> None:
    """They are those of all tenants."""
    async with serve(ScriptedService(), admin_key="op") as client:
        assert (await client.get("/cluster/requests")).status_code == 403
        shown = await client.get("/cluster/requests", headers={"authorization": "Bearer op"})
    assert shown.json() == {"requests": []}
