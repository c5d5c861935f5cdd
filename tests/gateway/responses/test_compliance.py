"""The cases of the Open Responses compliance test, by the names that it gives them.

The same bodies and the same checks: every answer and every event is what the specification says,
there is output, and it is complete. What the model says is scripted.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from PIL import Image
from pydantic import ValidationError
from tokenizers import Tokenizer

from epd.models.spec import Checkpoint
from epd.types import FinishReason
from tests.gateway.asking import b64
from tests.gateway.conftest import Serve
from tests.gateway.responses.asking import PATH, events
from tests.gateway.responses.specification import AnyEvent, Response
from tests.gateway.scripted import Last, ScriptedService, Step
from tests.media.documents import pdf
from tests.prompt.folders import TOOLS_TEMPLATE, write_folder

pytestmark = pytest.mark.anyio

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather for a location",
    "parameters": {
        "type": "object",
        "properties": {
            "location": {
                "type": "string",
                "description": "The city and state, e.g. San Francisco, CA",
            }
        },
        "required": ["location"],
    },
}
CALL = '{"name": "get_weather", "arguments": {"location": "San Francisco, CA"}}'
WORDS = "the user asks</think>Hello there."
CALLS = f"a tool knows</think><tool_call>\n{CALL}\n</tool_call>"


def says(role: str, content: Any) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": content}


def heart() -> str:
    """A small picture, as a client sends one."""
    file = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(file, "png")
    return f"data:image/png;base64,{b64(file.getvalue())}"


def document() -> str:
    """A small PDF."""
    return f"data:application/pdf;base64,{b64(pdf(TITLE))}"


TITLE = "On small documents"
ASKS_WEATHER = [says("user", "What's the weather like in San Francisco?")]
SEEN = {"type": "input_text", "text": "What do you see in this image? Answer in one sentence."}

CASES: dict[str, dict[str, Any]] = {
    "basic-response": {"input": [says("user", "Say hello in exactly 3 words.")]},
    "streaming-response": {"input": [says("user", "Count from 1 to 5.")], "stream": True},
    "system-prompt": {
        "input": [
            says("system", "You are a pirate. Always respond in pirate speak."),
            says("user", "Say hello."),
        ]
    },
    "tool-calling": {"input": ASKS_WEATHER, "tools": [WEATHER]},
    "tool-calling-streaming": {"input": ASKS_WEATHER, "tools": [WEATHER], "stream": True},
    "image-input": {"input": [says("user", [SEEN, {"type": "input_image", "image_url": heart()}])]},
    "file-input": {
        "input": [
            says(
                "user",
                [
                    {"type": "input_text", "text": "Answer with the file's title only."},
                    {"type": "input_file", "filename": "a.pdf", "file_data": document()},
                ],
            )
        ]
    },
    "multi-turn": {
        "input": [
            says("user", "My name is Alice."),
            says("assistant", "Hello Alice! Nice to meet you. How can I help you today?"),
            says("user", "What is my name?"),
        ]
    },
}
"""Those of one request."""

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "file-search": (
        {
            "input": "Search the configured vector store.",
            "tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}],
            "tool_choice": {"type": "file_search"},
            "include": ["file_search_call.results"],
        },
        "include[0]",
    ),
    "offline-web-search": (
        {
            "input": "Find the most relevant cached result.",
            "tools": [{"type": "web_search", "external_web_access": False}],
            "tool_choice": {"type": "web_search"},
            "include": ["web_search_call.action.sources"],
        },
        "include[0]",
    ),
}
"""What needs somebody else's tools; both are optional there."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return write_folder(tmp_path_factory.mktemp("compliance"), template=TOOLS_TEMPLATE)


Script = Callable[[str], list[Step]]


@pytest.fixture
def script(tokenizer: Tokenizer) -> Script:
    """A token at a time."""

    def written(text: str) -> list[Step]:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        return [*([one] for one in ids), Last((), FinishReason.STOP)]

    return written


def checked(response: httpx.Response, *, streamed: bool) -> dict[str, Any]:
    """The response, which has the form of the specification, as have all events before it."""
    assert response.status_code == 200, response.text
    said = events(response) if streamed else []
    for event in said:
        AnyEvent.validate_python(event)
    body: dict[str, Any] = said[-1]["response"] if streamed else response.json()
    Response.model_validate(body)
    assert body["output"] and body["status"] == "completed"
    return body


@pytest.mark.parametrize("case", CASES)
async def test_case(
    serve: Serve,
    model: Checkpoint,
    every: Checkpoint,
    script: Script,
    tokenizer: Tokenizer,
    case: str,
) -> None:
    body = {"model": "tiny", **CASES[case]}
    calls, streamed = case.startswith("tool-calling"), bool(body.get("stream"))
    service = ScriptedService(script(CALLS if calls else WORDS))
    served = every if case == "image-input" else model
    async with serve(service, model=served) as client:
        response = await client.post(PATH, json=body)
    answer = checked(response, streamed=streamed)
    kinds = [item["type"] for item in answer["output"]]
    assert ("function_call" if calls else "message") in kinds
    if calls and streamed:
        said = events(response)
        for name in ("added", "done"):
            assert any(
                event["type"] == f"response.output_item.{name}"
                and event["item"]["type"] == "function_call"
                for event in said
            )
        told = {event["type"] for event in said}
        arguments = "response.function_call_arguments"
        assert {f"{arguments}.delta", f"{arguments}.done"} <= told
    if case == "image-input":
        assert len(service.specs[0].draft.parts) == 1
    if case == "file-input":
        assert TITLE in tokenizer.decode(list(service.specs[0].draft.text[0]))


async def test_case_previous_response_id(serve: Serve, model: Checkpoint, script: Script) -> None:
    """The model sees the first turn, too."""
    service = ScriptedService(script(WORDS))
    async with serve(service, model=model) as client:
        first = "Remember this code word: papaya. Reply with only OK."
        one = await client.post(PATH, json={"model": "tiny", "input": first})
        response_id = checked(one, streamed=False)["id"]
        said = "What code word did I ask you to remember?"
        body = {"model": "tiny", "previous_response_id": response_id, "input": said}
        two = checked(await client.post(PATH, json=body), streamed=False)
    assert two["previous_response_id"] == response_id
    prompts = [spec.draft.num_text_tokens for spec in service.specs]
    assert prompts[1] > prompts[0] + len(first) // 8


async def test_case_function_call_roundtrip(
    serve: Serve, model: Checkpoint, script: Script, tokenizer: Tokenizer
) -> None:
    """A call that has to be made; its output is all that the second request says."""
    service = ScriptedService(script(CALLS))
    async with serve(service, model=model) as client:
        body = {
            "model": "tiny",
            "input": "Use the weather tool to get the temperature in San Francisco.",
            "tools": [WEATHER],
            "tool_choice": {"type": "function", "name": "get_weather"},
        }
        one = checked(await client.post(PATH, json=body), streamed=False)
        [call] = [item for item in one["output"] if item["type"] == "function_call"]
        service.script = script(WORDS)
        output = {"call_id": call["call_id"], "output": "64 degrees and clear"}
        body = {
            "model": "tiny",
            "previous_response_id": one["id"],
            "input": [{"type": "function_call_output", **output}],
        }
        checked(await client.post(PATH, json=body), streamed=False)
    assert service.specs[0].sampling.grammar and not service.specs[1].sampling.grammar
    assert "64 degrees and clear" in tokenizer.decode(list(service.specs[1].draft.text[0]))


@pytest.mark.parametrize("case", REFUSED)
async def test_case_that_is_not_served(serve: Serve, model: Checkpoint, case: str) -> None:
    """Refused by name, and nothing is sent to the cluster."""
    body, param = REFUSED[case]
    service = ScriptedService()
    async with serve(service, model=model) as client:
        response = await client.post(PATH, json={"model": "tiny", **body})
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param
    assert not service.specs


async def test_the_checks_find_what_is_wrong(
    serve: Serve, model: Checkpoint, script: Script
) -> None:
    """Negative control: without any one field, or with one of another type, it is no response."""
    async with serve(ScriptedService(script(WORDS)), model=model) as client:
        body = (await client.post(PATH, json={"input": "hi"})).json()
    Response.model_validate(body)
    for name in Response.model_fields:
        with pytest.raises(ValidationError):
            Response.model_validate({k: v for k, v in body.items() if k != name})
    with pytest.raises(ValidationError):
        Response.model_validate({**body, "created_at": str(body["created_at"])})
    with pytest.raises(ValidationError):
        AnyEvent.validate_python({"type": "response.output_text.delta", "delta": "a"})
