"""Who may ask, over HTTP, of a gateway with keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI

from epd.gateway.guard import PUBLIC
from epd.gateway.routes import install_routes
from epd.types import FinishReason
from tests.gateway.conftest import Serve
from tests.gateway.scripted import PROMPT, Last, ScriptedService

pytestmark = pytest.mark.anyio

A, B, LIMITED = "sk-a", "sk-b", "sk-limited"
KEYS = (
    {"key": A, "tenant": "a"},
    {"key": B},
    {"key": LIMITED, "max_requests": 1, "tokens_per_minute": 60},
)
CHAT = "/v1/chat/completions"
ANSWER = [Last((65, 66, 67), FinishReason.LENGTH)]


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], **fields}


def every_route() -> list[tuple[str, str]]:
    """Method and path of all there are, with something in the place of their parameters."""
    app = FastAPI(openapi_url=None)
    install_routes(app)
    routes = [
        (method, getattr(route, "path", "").replace("{", "").replace("}", "").replace(":path", ""))
        for route in app.routes
        for method in sorted(getattr(route, "methods", ()))
    ]
    assert ("POST", CHAT) in routes and len(routes) > 8
    return routes


@pytest.mark.parametrize(("method", "path"), every_route())
async def test_every_route_but_the_probes_needs_a_key(serve: Serve, method: str, path: str) -> None:
    async with serve(ScriptedService(ANSWER), api_keys=KEYS) as client:
        answers = [
            await client.request(method, path, headers=headers)
            for headers in ({}, bearer("sk-c"), bearer(A))
        ]
    refused = [answer.status_code == 401 for answer in answers]
    assert refused == ([False] * 3 if path in PUBLIC else [True, True, False])


async def test_a_refusal_has_openais_form(serve: Serve) -> None:
    async with serve(ScriptedService(ANSWER), api_keys=KEYS) as client:
        answer = await client.post(CHAT, json=chat(), headers=bearer("sk-c"))
    assert answer.headers["www-authenticate"] == "Bearer"
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
    assert "sk-c" not in answer.text


@pytest.mark.parametrize("path", ["/page/nothing", "/redoc", "/v1/nothing", "/health/x"])
async def test_what_does_not_exist_says_so_only_to_those_with_a_key(
    serve: Serve, path: str
) -> None:
    async with serve(ScriptedService(), api_keys=KEYS) as client:
        assert (await client.get(path)).status_code == 401
        assert (await client.get(path, headers=bearer(A))).status_code == 404


@pytest.mark.parametrize(
    "headers",
    [
        [("authorization", A)],
        [("authorization", f"Basic {A}")],
        [("authorization", "Bearer")],
        [("authorization", f"Bearer {A} {B}")],
        [("authorization", f"Bearer {A}"), ("authorization", f"Bearer {B}")],
        [("x-api-key", A)],
        [("cookie", f"authorization=Bearer {A}")],
    ],
)
async def test_a_key_is_shown_in_one_way_only(serve: Serve, headers: list[tuple[str, str]]) -> None:
    async with serve(ScriptedService(ANSWER), api_keys=KEYS) as client:
        assert (await client.post(CHAT, json=chat(), headers=headers)).status_code == 401
        good = [("authorization", f"bearer  {A}")]
        assert (await client.post(CHAT, json=chat(), headers=good)).status_code == 200


async def test_nothing_of_a_body_is_read_without_a_key(serve: Serve) -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(10):
            read += 1
            yield b" " * 1024

    async with serve(ScriptedService(), api_keys=KEYS) as client:
        assert (await client.post(CHAT, content=body())).status_code == 401
        assert read == 0
        await client.post(CHAT, content=body(), headers=bearer(A))
        assert read > 0  # the control


async def test_without_configured_keys_anybody_may_ask(serve: Serve) -> None:
    async with serve(ScriptedService(ANSWER)) as client:
        for headers in ({}, bearer("anything")):
            assert (await client.post(CHAT, json=chat(), headers=headers)).status_code == 200


async def test_tenants_share_no_caches_whatever_salt_they_choose(serve: Serve) -> None:
    service = ScriptedService(ANSWER)
    async with serve(service, api_keys=KEYS) as client:
        for key in (A, B):
            for salt in (None, "a", "b"):
                body = chat() if salt is None else chat(cache_salt=salt)
                answer = await client.post(CHAT, json=body, headers=bearer(key))
                assert answer.status_code == 200
        await client.post(CHAT, json=chat(cache_salt="a"), headers=bearer(A))
    salts = [spec.cache_salt for spec in service.specs]
    assert len(set(salts[:6])) == 6 and "" not in salts
    assert salts[6] == salts[1]  # the control: the same tenant shares with itself


async def test_a_key_with_too_many_requests_gets_429_until_one_ends(serve: Serve) -> None:
    service = ScriptedService([None])
    async with serve(service, api_keys=KEYS) as client, asyncio.timeout(20):
        first = asyncio.create_task(client.post(CHAT, json=chat(), headers=bearer(LIMITED)))
        await service.taken.wait()
        refused = await client.post(CHAT, json=chat(), headers=bearer(LIMITED))
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert (await client.get("/v1/models", headers=bearer(LIMITED))).status_code == 200
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        service.script = ANSWER
        again = await client.post(CHAT, json=chat(), headers=bearer(LIMITED))
        assert again.status_code == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_tokens_of_prompt_and_answer_count_against_the_minute(
    serve: Serve, stream: bool
) -> None:
    """What usage says is what is paid; 60 a minute are gone after the 6th request of 10."""
    service = ScriptedService(ANSWER)
    assert len(PROMPT) + 3 == 10
    async with serve(service, api_keys=KEYS) as client:
        statuses = [
            (await client.post(CHAT, json=chat(stream=stream), headers=bearer(LIMITED))).status_code
            for _ in range(8)
        ]
        other = await client.post(CHAT, json=chat(), headers=bearer(B))
    assert statuses[:6] == [200] * 6 and statuses[-1] == 429
    assert other.status_code == 200


async def test_the_operators_key_opens_the_operators_pages_and_no_others(serve: Serve) -> None:
    async with serve(ScriptedService(ANSWER), api_keys=KEYS, admin_key="root") as client:
        for path in ("/metrics", "/cluster"):
            assert (await client.get(path, headers=bearer("root"))).status_code == 200
        assert (await client.get("/v1/models", headers=bearer("root"))).status_code == 401
        assert (await client.post(CHAT, json=chat(), headers=bearer("root"))).status_code == 401
        order = {"worker": "decode-0"}
        drains = [
            (await client.post("/cluster/drain", json=order, headers=bearer(key))).status_code
            for key in (A, "root")
        ]
    assert drains == [403, 200]


ORIGIN = {"origin": "https://page.example"}
PREFLIGHT = {
    **ORIGIN,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type",
}


async def test_web_pages_may_not_ask_unless_their_origin_is_allowed(serve: Serve) -> None:
    async with serve(ScriptedService(ANSWER)) as client:
        plain = await client.post(CHAT, json=chat(), headers=ORIGIN)
        asked = await client.options(CHAT, headers=PREFLIGHT)
    assert not any(name.startswith("access-control") for name in (*plain.headers, *asked.headers))
    assert asked.status_code == 405


@pytest.mark.parametrize(
    ("allowed", "status"),
    [("https://page.example", 200), ("*", 200), ("https://other.example", 400)],
)
async def test_web_pages_of_allowed_origins_may_ask(
    serve: Serve, allowed: str, status: int
) -> None:
    """Browsers ask first, without a key; and errors can be read by the page as well."""
    async with serve(ScriptedService(ANSWER), api_keys=KEYS, allowed_origins=(allowed,)) as client:
        asked = await client.options(CHAT, headers=PREFLIGHT)
        good = await client.post(CHAT, json=chat(), headers={**ORIGIN, **bearer(A)})
        bad = await client.post(CHAT, json=chat(), headers=ORIGIN)
    shown = [allowed] if status == 200 else [None]
    for answer in (asked, good, bad):
        assert [answer.headers.get("access-control-allow-origin")] == shown
        assert "access-control-allow-credentials" not in answer.headers
    assert [asked.status_code, good.status_code, bad.status_code] == [status, 200, 401]
