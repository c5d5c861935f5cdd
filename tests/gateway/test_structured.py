"""The form of an answer as clients ask for it, and the field that an error names."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from epd.errors import BadRequest
from epd.types import FinishReason
from tests.gateway.asking import TEXT, chat
from tests.gateway.conftest import Serve
from tests.gateway.scripted import Last, ScriptedService
from tests.gateway.test_schemas import chat as body
from tests.gateway.test_schemas import parse

SCRIPT = [Last((65,), FinishReason.LENGTH)]
PATTERNS = [f"a.*{chr(97 + n)}.*b{n}" for n in range(26)]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def named(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}


@pytest.mark.parametrize(
    ("fields", "words", "field"),
    [
        ({"response_format": {"type": "json_object"}}, '"object"', "response_format"),
        (
            {"response_format": named(SCHEMA)},
            '"integer"',
            "response_format.json_schema.schema",
        ),
        ({"structured_outputs": {"json": SCHEMA}}, '"integer"', "structured_outputs.json"),
        (
            {"structured_outputs": {"json": '{"type": "null"}'}},
            '"null"',
            "structured_outputs.json",
        ),
        ({"structured_outputs": {"json_object": True}}, "", "structured_outputs.json_object"),
        ({"structured_outputs": {"regex": "[x]+"}}, "[x]+", "structured_outputs.regex"),
        ({"structured_outputs": {"choice": ["yes"]}}, "yes", "structured_outputs.choice"),
        (
            {"structured_outputs": {"grammar": 'start: "a"'}},
            "start",
            "structured_outputs.grammar",
        ),
        (
            {
                "structured_outputs": {"regex": "a", "json": None},
                "response_format": {"type": "text"},
            },
            "a",
            "structured_outputs.regex",
        ),
    ],
)
def test_every_form_becomes_a_grammar(fields: dict[str, Any], words: str, field: str) -> None:
    grammar, where = parse(body(**fields)).grammar
    assert words in grammar and where == field


def test_text_is_no_form() -> None:
    for fields in ({}, {"response_format": {"type": "text"}}, {"response_format": None}):
        assert parse(body(**fields)).grammar == ("", "")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
            "response_format.json_schema.name",
        ),
        ({"response_format": named([])}, "response_format.json_schema.schema"),
        ({"response_format": {"type": "text", "mood": 1}}, "response_format.mood"),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs"),
        ({"structured_outputs": {"regex": ""}}, "structured_outputs.regex"),
        ({"structured_outputs": {"regex": "a" * (1 << 18)}}, "structured_outputs.regex"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
        ({"structured_outputs": {"choice": [1]}}, "structured_outputs.choice[0]"),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs.json"),
        ({"structured_outputs": {"json": 5}}, "structured_outputs.json"),
        ({"structured_outputs": {"json": "[" * 100_000}}, "structured_outputs.json"),
        (
            {"structured_outputs": {"structural_tag": "{}", "regex": "a"}},
            "structured_outputs.structural_tag",
        ),
        (
            {
                "response_format": {"type": "json_object"},
                "structured_outputs": {"regex": "a"},
            },
            "structured_outputs",
        ),
    ],
)
def test_a_fault_names_its_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse(body(**fields))
    assert refused.value.param == param


@pytest.mark.anyio
async def test_the_grammar_goes_with_the_request(serve: Serve) -> None:
    service = ScriptedService(SCRIPT)
    async with serve(service) as client:
        asked = chat(TEXT, structured_outputs={"choice": ["A", "B"]})
        response = await client.post("/v1/chat/completions", json=asked)
        assert response.status_code == 200, response.text
    assert '"A" | "B"' in service.specs[0].sampling.grammar.replace("\\", "")


@pytest.mark.anyio
async def test_what_cannot_be_followed_is_a_400_that_names_the_field(serve: Serve) -> None:
    """Nothing was sent to the cluster."""
    service = ScriptedService(SCRIPT)
    hangs = {"allOf": [{"type": "string", "pattern": p} for p in PATTERNS]}
    async with serve(service, grammar_timeout_s=1.0) as client:
        for fields, param, words in (
            ({"structured_outputs": {"regex": "(a"}}, "structured_outputs.regex", "unclosed"),
            ({"response_format": named({"type": "foo"})}, "", "foo"),
            ({"response_format": named(hangs)}, "", "longer than 1 s"),
        ):
            response = await client.post("/v1/chat/completions", json=chat(TEXT, **fields))
            assert response.status_code == 400
            error = response.json()["error"]
            assert error["param"] == (param or "response_format.json_schema.schema")
            assert words in error["message"]
        ends_not = chat(TEXT, response_format={"type": "json_object"}, ignore_eos=True)
        response = await client.post("/v1/chat/completions", json=ends_not)
        assert (response.status_code, response.json()["error"]["param"]) == (400, "ignore_eos")
    assert not service.specs


@pytest.mark.anyio
async def test_too_many_forms_that_wait_are_a_429(serve: Serve) -> None:
    """Others are not kept waiting: what is free of forms goes on."""
    service = ScriptedService(SCRIPT)
    asked = [
        chat(TEXT, structured_outputs={"json": {"allOf": [{"pattern": p} for p in PATTERNS[n:]]}})
        for n in range(3)
    ]
    async with serve(service, grammar_timeout_s=1.0, max_grammars=1) as client:
        answers = await asyncio.gather(
            *(client.post("/v1/chat/completions", json=body) for body in asked),
            client.post("/v1/chat/completions", json=chat(TEXT)),
        )
    assert [answer.status_code for answer in answers] == [400, 429, 429, 200]
