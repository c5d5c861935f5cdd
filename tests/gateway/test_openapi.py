"""The document says what the surface is."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer

from epd.gateway.openapi.operations import OPERATIONS
from epd.types import FinishReason
from tests.gateway.asking import chat
from tests.gateway.conftest import Serve
from tests.gateway.scripted import Last, ScriptedService

pytestmark = pytest.mark.anyio

BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/v1/chat/completions"): chat({"type": "text", "text": "a"}, logprobs=True, n=1),
    ("POST", "/v1/completions"): {"model": "tiny", "prompt": "a", "logprobs": 1},
    ("POST", "/v1/responses"): {"input": "a"},
    ("POST", "/tokenize"): {"prompt": "a"},
    ("POST", "/detokenize"): {"tokens": [65]},
}


async def document(serve: Serve) -> dict[str, Any]:
    async with serve(ScriptedService()) as client:
        found: dict[str, Any] = (await client.get("/openapi.json")).json()
    return found


def refs(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(refs, value.values()))
    return set().union(*map(refs, value)) if isinstance(value, list) else set()


async def test_every_route_is_described_and_nothing_else(serve: Serve) -> None:
    found = await document(serve)
    shown = {(m.upper(), path) for path, methods in found["paths"].items() for m in methods}
    assert shown == set(OPERATIONS)


async def test_every_reference_leads_somewhere(serve: Serve) -> None:
    found = await document(serve)
    names = {f"#/components/schemas/{name}" for name in found["components"]["schemas"]}
    assert refs(found) <= names


async def test_a_body_shows_what_is_accepted_beside_its_fields(serve: Serve) -> None:
    schemas = (await document(serve))["components"]["schemas"]
    chat, text = schemas["ChatRequest"], schemas["CompletionRequest"]
    assert chat["properties"]["user"] and not chat["additionalProperties"]
    assert text["properties"]["echo"] == {"enum": [None, False]}
    assert text["properties"]["temperature"] == chat["properties"]["temperature"]
    assert "messages" not in text["properties"]


@pytest.mark.parametrize(("method", "path"), sorted(OPERATIONS))
async def test_answers_have_the_forms_that_are_described(
    serve: Serve, tokenizer: Tokenizer, method: str, path: str
) -> None:
    operation = OPERATIONS[method, path]
    body = BODIES.get((method, path))
    if operation.takes is not None and body is None:
        pytest.skip("asked elsewhere")
    service = ScriptedService([Last(tuple(tokenizer.encode("a").ids), FinishReason.LENGTH)])
    async with serve(service) as client:
        ran = await client.post("/v1/chat/completions", json=chat({"type": "text", "text": "a"}))
        kept = await client.post("/v1/responses", json={"input": "a"})
        ids = {"request_id": ran.json()["id"], "response_id": kept.json()["id"]}
        where = path.format(name="tiny", **ids)
        response = await client.request(method, where, json=body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith(operation.kind)
    if operation.answer is not None:
        operation.answer.model_validate(response.json())


async def test_the_page_shows_every_path_and_loads_nothing(serve: Serve) -> None:
    async with serve(ScriptedService()) as client:
        page = (await client.get("/docs")).text
    assert all(path in page for _, path in OPERATIONS)
    assert "<script" not in page and "https://" not in page.split("<h2>")[0]
