"""/v1/responses over a scripted service."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer

from epd.errors import Overloaded, Unavailable
from epd.gateway.openapi.answers import Response
from epd.models.spec import Checkpoint
from epd.types import FinishReason, Modality
from tests.gateway.asking import b64, inline
from tests.gateway.conftest import Serve
from tests.gateway.responses.asking import PATH, ask, events, rebuilt, texts, user
from tests.gateway.scripted import Last, ScriptedService, Step

pytestmark = pytest.mark.anyio


def script(tokenizer: Tokenizer, *said: str, end: FinishReason = FinishReason.STOP) -> list[Step]:
    return [*(tokenizer.encode(text).ids for text in said), Last((), end)]


def prompts(service: ScriptedService, checkpoint: Checkpoint) -> list[str]:
    tokenizer = Tokenizer.from_file(str(checkpoint.path / "tokenizer.json"))
    return [
        tokenizer.decode([i for text in spec.draft.text for i in text], skip_special_tokens=False)
        for spec in service.specs
    ]


async def test_an_answer_has_every_field_of_the_specification(
    serve: Serve, tokenizer: Tokenizer
) -> None:
    async with serve(ScriptedService(script(tokenizer, "a small", " house"))) as client:
        body = (await client.post(PATH, json=ask(temperature=0.5, metadata={"a": "b"}))).json()
    Response.model_validate(body)
    assert body["status"] == "completed" and body["completed_at"] >= body["created_at"]
    assert body["output"] == [
        {
            "type": "message",
            "id": "msg_r0_0",
            "status": "completed",
            "role": "assistant",
            "content": [
                {"type": "output_text", "text": "a small house", "annotations": [], "logprobs": []}
            ],
        }
    ]
    assert (body["temperature"], body["top_p"], body["metadata"]) == (0.5, 1.0, {"a": "b"})
    assert body["usage"]["input_tokens"] == 7


async def test_a_stream_tells_how_the_same_response_came_to_be(
    serve: Serve, tokenizer: Tokenizer
) -> None:
    """In the order of the specification; the events make the same items."""
    service = ScriptedService(script(tokenizer, "a small", " house"))
    async with serve(service) as client:
        whole = (await client.post(PATH, json=ask(seed=1))).json()
        streamed = events(await client.post(PATH, json=ask(seed=1, stream=True)))
    assert [event["type"].removeprefix("response.") for event in streamed] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    last = streamed[-1]["response"]
    assert rebuilt(streamed) == last["output"]
    assert streamed[0]["response"]["output"] == [] and streamed[0]["response"]["usage"] is None
    differs = {"id", "output", "created_at", "completed_at"}
    assert {k: v for k, v in last.items() if k not in differs} == {
        k: v for k, v in whole.items() if k not in differs
    }
    assert texts(last) == texts(whole) == ["a small house"]


async def test_an_answer_that_was_cut_is_incomplete(serve: Serve, tokenizer: Tokenizer) -> None:
    service = ScriptedService(script(tokenizer, "a", end=FinishReason.LENGTH))
    async with serve(service) as client:
        body = (await client.post(PATH, json=ask(max_output_tokens=5))).json()
        streamed = events(await client.post(PATH, json=ask(max_output_tokens=5, stream=True)))
    assert body["status"] == body["output"][-1]["status"] == "incomplete"
    assert body["incomplete_details"] == {"reason": "max_output_tokens"}
    assert streamed[-1]["type"] == "response.incomplete"
    assert service.specs[0].sampling.max_tokens == 5


async def test_logprobs_come_with_the_text_of_their_tokens(
    serve: Serve, tokenizer: Tokenizer
) -> None:
    said = script(tokenizer, "the ", "fox")
    fields: dict[str, Any] = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    async with serve(ScriptedService(said)) as client:
        body = (await client.post(PATH, json=ask(**fields))).json()
        streamed = events(await client.post(PATH, json=ask(**fields, stream=True)))
    found = body["output"][0]["content"][0]["logprobs"]
    assert "".join(one["token"] for one in found) == "the fox"
    assert all(len(one["top_logprobs"]) == 2 for one in found)
    assert rebuilt(streamed)[0]["content"][0]["logprobs"] == found


async def test_an_error_before_the_first_token_has_its_status(serve: Serve) -> None:
    async with serve(ScriptedService(refusal=Overloaded("no room"))) as client:
        response = await client.post(PATH, json=ask(stream=True))
    assert response.status_code == 429 and response.json()["error"]["message"] == "no room"


async def test_an_error_afterwards_is_an_event_and_the_response_failed(
    serve: Serve, tokenizer: Tokenizer
) -> None:
    """A response that failed is not kept."""
    steps: list[Step] = [tokenizer.encode("a").ids, Unavailable("gone")]
    async with serve(ScriptedService(steps)) as client:
        found = events(await client.post(PATH, json=ask(stream=True)))
        kept = await client.get(f"{PATH}/{found[-1]['response']['id']}")
    assert [event["type"] for event in found[-2:]] == ["error", "response.failed"]
    assert found[-2]["error"]["message"] == "gone"
    assert found[-1]["response"]["error"] == {"code": "unavailable", "message": "gone"}
    assert kept.status_code == 404


async def test_roles_items_and_instructions_become_one_chat(
    serve: Serve, every: Checkpoint
) -> None:
    said = [
        {"role": "developer", "content": "Be brief."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "My"}]},
        {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Yes?", "annotations": []}],
        },
        {"role": "user", "content": [{"type": "text", "text": "name"}]},
    ]
    service = ScriptedService([Last((65,), FinishReason.LENGTH)])
    async with serve(service, model=every) as client:
        response = await client.post(PATH, json=ask(said, instructions="Rhyme."))
    assert response.status_code == 200, response.text
    turns = (("system", "Rhyme.\n\nBe brief."), ("user", "My"), ("assistant", "Yes?"))
    chat = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns)
    assert prompts(service, every) == [
        f"{chat}<|im_start|>user\nname<|im_end|>\n<|im_start|>assistant"
    ]


async def test_items_come_in_either_form(serve: Serve, every: Checkpoint) -> None:
    """As the specification has them, and as chats do."""
    url = "data:application/x;base64," + b64(b"p")
    parts = [
        {"type": "input_image", "image_url": url, "detail": "auto"},
        {"type": "input_image", "image_url": url},
        {"type": "input_video", "video_url": url},
        {"type": "input_audio", "input_audio": {"data": b64(b"a"), "format": "mp3"}},
        inline("video", b"v"),
        inline("audio", b"b"),
        {"type": "text", "text": "Transcribe this."},
    ]
    service = ScriptedService([Last((65,), FinishReason.LENGTH)])
    async with serve(service, model=every) as client:
        response = await client.post(PATH, json=ask([user(*parts)], max_output_tokens=200))
    assert response.status_code == 200, response.text
    assert [(p.modality, p.source.data) for p in service.specs[0].draft.parts] == [
        (Modality.IMAGE, b"p"),
        (Modality.IMAGE, b"p"),
        (Modality.VIDEO, b"p"),
        (Modality.AUDIO, b"a"),
        (Modality.VIDEO, b"v"),
        (Modality.AUDIO, b"b"),
    ]


IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,!"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "tiny"}, "input"),
        (ask(5), "input"),
        (ask([]), "input"),
        (ask("x" * 10**6), "input"),
        (ask(["a"]), "input[0]"),
        (ask([{"type": "smell"}]), "input[0]"),
        (ask([{"type": ["message"]}]), "input[0]"),
        (ask([{"type": "item_reference", "id": "x"}]), "input[0]"),
        (ask([{"role": "robot", "content": "x"}]), "input[0].role"),
        (ask([{"role": ["user"], "content": "x"}]), "input[0].role"),
        (
            ask([{"role": "user", "content": "x"}, {"role": "user", "content": 5}]),
            "input[1].content",
        ),
        (ask([user({"type": "smell"})]), "input[0].content[0]"),
        (ask([user({"type": ["text"]})]), "input[0].content[0]"),
        (ask([user("x")]), "input[0].content[0]"),
        (ask([user({"type": "input_text", "text": 5})]), "input[0].content[0].text"),
        (ask([user({"type": "input_text", "text": "x"}, IMAGE)]), "input[0].content[1]"),
        (ask([user({**IMAGE, "detail": "low"})]), "input[0].content[0].image_url.detail"),
        (ask([user({"type": "input_image", "file_id": "x"})]), "input[0].content[0].file_id"),
        (ask([user({"type": "input_file", "file_data": "x"})]), "input[0].content[0]"),
        (ask([user({**IMAGE, "mood": 1})]), "input[0].content[0].mood"),
        (ask(mood=1), "mood"),
        (ask(background=True), "background"),
        (ask(conversation="x"), "conversation"),
        (ask(max_output_tokens=0), "max_output_tokens"),
        (ask(temperature=3), "temperature"),
        (ask(include=["x"]), "include[0]"),
        (ask(text={"verbosity": "high"}), "text.verbosity"),
        (ask(text={"format": {"type": "x"}}), "text.format.type"),
        (ask(tools=[{"type": "web_search"}]), "tools[0].type"),
        (ask(tool_choice={"type": "x"}), "tool_choice"),
        (ask(stop=[""]), "stop[0]"),
        (ask(messages=[]), "messages"),
        (ask(model="other"), "model"),
        (ask(previous_response_id="resp_x"), "previous_response_id"),
    ],
)
async def test_a_fault_is_named_as_the_client_wrote_it(
    serve: Serve, every: Checkpoint, body: dict[str, Any], param: str
) -> None:
    service = ScriptedService([Last((65,), FinishReason.LENGTH)])
    async with serve(service, model=every) as client:
        response = await client.post(PATH, json=body)
    error = response.json()["error"]
    assert response.status_code == (404 if param == "model" else 400), error
    assert error["param"] == param, error
    assert service.specs == []
