"""Tools, reasoning and structured text in responses."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer

from epd.models.spec import Checkpoint
from epd.types import FinishReason
from tests.gateway.conftest import Serve
from tests.gateway.responses.asking import PATH, ask, events, rebuilt
from tests.gateway.scripted import Last, ScriptedService, Step
from tests.prompt.folders import TOOLS_TEMPLATE, write_folder

pytestmark = pytest.mark.anyio

LOOK = {
    "type": "function",
    "name": "look",
    "parameters": {"type": "object", "properties": {"at": {"type": "integer"}}},
}
GO = {"type": "function", "name": "go"}
SAID = 'well</think>I look.\n<tool_call>\n{"name": "look", "arguments": {"at": 1}}\n</tool_call>'
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return write_folder(tmp_path_factory.mktemp("tools"), template=TOOLS_TEMPLATE)


@pytest.fixture
def steps(tokenizer: Tokenizer) -> list[Step]:
    """A token at a time."""
    ids = tokenizer.encode(SAID).ids
    return [*([one] for one in ids), Last((), FinishReason.STOP)]


def allowed(mode: str, *names: str) -> dict[str, Any]:
    tools = [{"type": "function", "name": name} for name in names]
    return {"type": "allowed_tools", "tools": tools, "mode": mode}


def plain(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what differs from one answer to the next."""
    return [{k: v for k, v in item.items() if k not in ("id", "call_id")} for item in items]


async def test_thoughts_words_and_calls_are_items_of_their_own(
    serve: Serve, model: Checkpoint, steps: list[Step], tokenizer: Tokenizer
) -> None:
    """The same streamed, and the call is gone on with."""
    async with serve(ScriptedService(steps), model=model) as client:
        body = (await client.post(PATH, json=ask(tools=[LOOK]))).json()
        streamed = events(await client.post(PATH, json=ask(tools=[LOOK], stream=True)))
        reasoning, message, call = body["output"]
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "a house"}
        more = ask([output], tools=[LOOK], previous_response_id=body["id"])
        after = await client.post(PATH, json=more)
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "well"}]
    assert [part["text"] for part in message["content"]] == ["I look."]
    assert (call["type"], call["name"], call["arguments"]) == ("function_call", "look", '{"at": 1}')
    assert plain(rebuilt(streamed)) == plain(body["output"])
    usage = body["usage"]
    assert streamed[-1]["response"]["usage"] == usage
    num = len(tokenizer.encode("well</think>").ids)
    assert usage["output_tokens_details"] == {"reasoning_tokens": num}
    kinds = {event["type"].removeprefix("response.") for event in streamed}
    assert {"function_call_arguments.delta", "function_call_arguments.done"} <= kinds
    assert body["tools"][0]["name"] == "look" and body["tool_choice"] == "auto"
    assert after.status_code == 200, after.text


@pytest.mark.parametrize(
    ("choice", "must"),
    [
        ("none", False),
        ("auto", False),
        ("required", True),
        ({"type": "function", "name": "look"}, True),
        (allowed("auto", "look", "go"), False),
        (allowed("auto", "look"), True),
        (allowed("required", "look", "go"), True),
    ],
)
async def test_a_choice_of_tools_is_the_chats(
    serve: Serve, model: Checkpoint, steps: list[Step], choice: Any, must: bool
) -> None:
    service = ScriptedService(steps)
    async with serve(service, model=model) as client:
        body = ask(tools=[LOOK, GO], tool_choice=choice)
        response = await client.post(PATH, json=body)
    assert response.status_code == 200, response.text
    assert bool(service.specs[0].sampling.grammar) == must
    assert response.json()["tool_choice"] == choice


async def test_text_has_the_form_that_was_asked_for(
    serve: Serve, model: Checkpoint, steps: list[Step]
) -> None:
    service = ScriptedService(steps)
    wanted = {"type": "json_schema", "name": "a", "schema": SCHEMA, "strict": True}
    async with serve(service, model=model) as client:
        response = await client.post(PATH, json=ask(text={"format": wanted}))
    assert response.status_code == 200, response.text
    assert service.specs[0].sampling.grammar
    assert response.json()["text"]["format"] == wanted


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": 5}}}}, "text"),
        ({"tools": [LOOK], "tool_choice": {"type": "function", "name": "go"}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [LOOK], "tool_choice": allowed("auto", "go")}, "tool_choice.tools[0]"),
        ({"reasoning": {"effort": "lots"}}, "reasoning.effort"),
    ],
)
async def test_a_fault_is_named_as_the_client_wrote_it(
    serve: Serve, model: Checkpoint, fields: dict[str, Any], param: str
) -> None:
    service = ScriptedService()
    async with serve(service, model=model) as client:
        response = await client.post(PATH, json=ask(**fields))
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"].startswith(param), response.text
    assert service.specs == []
