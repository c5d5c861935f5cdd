"""What an answer says of its path: in headers always, in usage for those who ask."""

from __future__ import annotations

import json
from typing import Any

import pytest

from epd.errors import Unavailable
from epd.types import FinishReason
from tests.gateway.asking import chat
from tests.gateway.conftest import Serve
from tests.gateway.scripted import Last, ScriptedService

pytestmark = pytest.mark.anyio

SCRIPT = [Last((65,), FinishReason.LENGTH)]
URL = "/v1/chat/completions"
HELLO = {"type": "text", "text": "hello"}
HEADERS = {"x-epd-request-id", "x-epd-encoders", "x-epd-cache-hits", "x-epd-retries"}


def last_usage(text: str) -> dict[str, Any] | None:
    """Of a stream's last chunk."""
    chunks = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert chunks[-1] == "[DONE]"
    usage: dict[str, Any] | None = json.loads(chunks[-2]).get("usage")
    return usage


@pytest.mark.parametrize("stream", [False, True])
async def test_every_answer_has_the_headers(serve: Serve, stream: bool) -> None:
    async with serve(ScriptedService(SCRIPT)) as client:
        response = await client.post(URL, json=chat(HELLO, stream=stream))
    assert set(response.headers) >= HEADERS
    assert response.headers["x-epd-request-id"] == "r"


async def test_an_error_of_a_request_that_was_taken_has_them_too(serve: Serve) -> None:
    async with serve(ScriptedService([Unavailable("gone")])) as client:
        response = await client.post(URL, json=chat(HELLO))
    assert response.status_code == 503 and set(response.headers) >= HEADERS


async def test_what_was_never_taken_has_no_path(serve: Serve) -> None:
    async with serve(ScriptedService(refusal=Unavailable("none"))) as client:
        refused = await client.post(URL, json=chat(HELLO))
        health = await client.get("/health")
    assert not HEADERS & set(refused.headers) and not HEADERS & set(health.headers)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("way", ["body", "header"])
async def test_who_asks_gets_the_path_in_usage(serve: Serve, stream: bool, way: str) -> None:
    """A stream ends with a usage chunk then, without `include_usage`."""
    body = chat(HELLO, stream=stream, **({"return_path": True} if way == "body" else {}))
    headers = {"x-epd-path": "1"} if way == "header" else {}
    async with serve(ScriptedService(SCRIPT)) as client:
        response = await client.post(URL, json=body, headers=headers)
    usage = last_usage(response.text) if stream else response.json()["usage"]
    assert usage is not None and usage["epd"]["request_id"] == "r"


@pytest.mark.parametrize("headers", [{}, {"x-epd-path": "0"}])
async def test_who_does_not_ask_gets_openais_form(serve: Serve, headers: dict[str, str]) -> None:
    async with serve(ScriptedService(SCRIPT)) as client:
        whole = await client.post(URL, json=chat(HELLO, return_path=False), headers=headers)
        streamed = await client.post(URL, json=chat(HELLO, stream=True), headers=headers)
    assert "epd" not in whole.json()["usage"]
    assert last_usage(streamed.text) is None


async def test_the_clients_trace_reaches_the_cluster(serve: Serve) -> None:
    service = ScriptedService(SCRIPT)
    async with serve(service) as client:
        await client.post(URL, json=chat(HELLO), headers={"traceparent": "00-1-2-03"})
        await client.post(URL, json=chat(HELLO))
    assert [spec.traceparent for spec in service.specs] == ["00-1-2-03", ""]
