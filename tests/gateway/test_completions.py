"""/v1/completions over a scripted service: prompts as they are written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tokenizers import Tokenizer

from epd.config import MediaConfig
from epd.errors import Overloaded
from epd.models.spec import Checkpoint
from epd.types import FinishReason, Modality
from tests.gateway.asking import inline
from tests.gateway.conftest import Serve
from tests.gateway.scripted import PROMPT, Last, Of, ScriptedService, Step, logprobs_of

pytestmark = pytest.mark.anyio

PATH = "/v1/completions"
LENGTH = FinishReason.LENGTH


def ask(prompt: Any = "a house", **fields: Any) -> dict[str, Any]:
    return {"model": "tiny", "prompt": prompt, **fields}


def chunks(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


async def test_an_answer_has_openais_form(serve: Serve, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("the fox").ids
    service = ScriptedService([ids, Last((), LENGTH)])
    async with serve(service) as client:
        body = (await client.post(PATH, json=ask())).json()
    assert body.pop("created") > 0
    assert body == {
        "id": "cmpl-r0",
        "object": "text_completion",
        "model": "tiny",
        "choices": [{"index": 0, "text": "the fox", "logprobs": None, "finish_reason": "length"}],
        "usage": {
            "prompt_tokens": len(PROMPT),
            "completion_tokens": len(ids),
            "total_tokens": len(PROMPT) + len(ids),
            "prompt_tokens_details": {
                "cached_tokens": 3,
                **{f"{modality.value}_tokens": 0 for modality in Modality},
            },
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }
    assert service.specs[0].sampling.max_tokens == 16


async def test_a_stream_has_the_same_text_and_the_usage_that_was_asked_for(
    serve: Serve, tokenizer: Tokenizer
) -> None:
    script: list[Step] = [
        tokenizer.encode("the fox").ids,
        Last(tuple(tokenizer.encode("!").ids), LENGTH),
    ]
    async with serve(ScriptedService(script)) as client:
        whole = (await client.post(PATH, json=ask())).json()
        fields = {"stream": True, "stream_options": {"include_usage": True}}
        streamed = chunks((await client.post(PATH, json=ask(**fields))).text)
    *pieces, last = streamed
    assert "".join(piece["choices"][0]["text"] for piece in pieces) == whole["choices"][0]["text"]
    assert [piece["usage"] for piece in pieces] == [None] * len(pieces)
    assert (last["choices"], last["usage"]) == ([], whole["usage"])


async def test_special_tokens_in_a_prompt_are_special(serve: Serve, tokenizer: Tokenizer) -> None:
    """In a chat they are text."""
    service = ScriptedService([Last((65,), LENGTH)])
    prompt = "<|im_start|>user\nhi<|im_end|>"
    async with serve(service) as client:
        for form in (prompt, tokenizer.encode(prompt).ids):
            assert (await client.post(PATH, json=ask(form))).status_code == 200
    ids = tuple(tokenizer.encode(prompt).ids)
    assert [spec.draft.text for spec in service.specs] == [(ids,), (ids,)]
    assert tokenizer.token_to_id("<|im_start|>") == ids[0]


@pytest.mark.parametrize("stream", [False, True])
async def test_choices_of_several_prompts_are_counted_on(
    serve: Serve, tokenizer: Tokenizer, stream: bool
) -> None:
    """Each prompt is a request of its own; without a seed each draws its own."""
    service = ScriptedService([Last((65,), LENGTH), Of(1, Last((66,), LENGTH))])
    body = ask([[40, 41], "a house"], n=2, stream=stream)
    async with serve(service) as client:
        response = await client.post(PATH, json=body)
    answers = chunks(response.text) if stream else [response.json()]
    choices = sorted((c["index"], c["text"]) for answer in answers for c in answer["choices"])
    a, b = (tokenizer.decode([token]) for token in (65, 66))
    assert choices == [(0, a), (1, b), (2, a), (3, b)]
    assert [spec.draft.text[0][:2] for spec in service.specs][0] == (40, 41)
    assert len({spec.sampling.seed for spec in service.specs}) == 2
    if not stream:
        assert answers[0]["usage"]["prompt_tokens"] == 2 * len(PROMPT)


async def test_a_seed_is_the_same_for_every_prompt(serve: Serve) -> None:
    service = ScriptedService([Last((65,), LENGTH)])
    async with serve(service) as client:
        await client.post(PATH, json=ask(["a", "b"], seed=7))
    assert [spec.sampling.seed for spec in service.specs] == [7, 7]


async def test_an_error_of_one_prompt_is_the_answer_and_the_others_are_cancelled(
    serve: Serve,
) -> None:
    service = ScriptedService([Overloaded("no room")])
    async with serve(service) as client:
        response = await client.post(PATH, json=ask(["a", "b"]))
    assert response.status_code == 429
    assert [call.num_cancels for call in service.calls] == [1, 1]


async def test_logprobs_have_the_form_of_completions(serve: Serve, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("the fox").ids
    async with serve(ScriptedService([ids[:1], Last(tuple(ids[1:]), LENGTH)])) as client:
        body = (await client.post(PATH, json=ask(logprobs=1))).json()
        stream = chunks((await client.post(PATH, json=ask(logprobs=1, stream=True))).text)
    found = body["choices"][0]["logprobs"]
    assert "".join(found["tokens"]) == "the fox"
    assert found["token_logprobs"] == [logprobs_of(one, 1).logprob for one in ids]
    assert found["top_logprobs"] == [{tokenizer.decode([65]): -0.5}] * len(ids)
    assert found["text_offset"][0] == 0
    for name, values in found.items():
        assert [v for c in stream for v in c["choices"][0]["logprobs"][name]] == values


async def test_token_ids_are_told_to_who_asks(serve: Serve, tokenizer: Tokenizer) -> None:
    """Several tokens may have one text; `content` has each, as in a chat."""
    ids = tokenizer.encode("the fox").ids
    asked = ask(logprobs=1, return_token_ids=True)
    async with serve(ScriptedService([Last(tuple(ids), LENGTH)])) as client:
        [choice] = (await client.post(PATH, json=asked)).json()["choices"]
        [silent] = (await client.post(PATH, json=ask(logprobs=1))).json()["choices"]
    assert choice["prompt_token_ids"] == list(PROMPT)
    content = choice["logprobs"]["content"]
    assert [entry["token_id"] for entry in content] == choice["token_ids"] == ids
    assert [entry["top_logprobs"][0]["token_id"] for entry in content] == [65] * len(ids)
    assert "prompt_token_ids" not in silent and "content" not in silent["logprobs"]


async def test_items_take_the_placeholders_of_their_kind(serve: Serve, every: Checkpoint) -> None:
    service = ScriptedService([Last((65,), LENGTH)])
    prompt = "<|video_pad|> then <|image_pad|>"
    items = [inline("image", b"p"), inline("video", b"v")]
    async with serve(service, model=every) as client:
        response = await client.post(PATH, json=ask(prompt, items=items))
    assert response.status_code == 200, response.text
    parts = service.specs[0].draft.parts
    assert [(part.modality, part.source.data) for part in parts] == [
        (Modality.VIDEO, b"v"),
        (Modality.IMAGE, b"p"),
    ]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (ask(5), "prompt"),
        (ask([]), "prompt"),
        (ask(""), "prompt"),
        (ask([["a"]]), "prompt"),
        (ask([1, "a"]), "prompt"),
        (ask([True]), "prompt"),
        (ask(["a"] * 65), "prompt"),
        (ask([10**6]), "prompt"),
        (ask("x" * 10**6), "prompt"),
        (ask("<|image_pad|>"), "prompt"),
        (ask(items=[inline("image", b"p")]), "prompt"),
        (ask(items=[{"type": "text", "text": "x"}]), "items[0]"),
        (ask(items=[{"type": "smell"}]), "items[0]"),
        (ask("<|image_pad|>", items=[{"type": "image_url"}]), "items[0].image_url"),
        (ask(items=[inline("image", b"p", mood=1)]), "items[0].mood"),
        (ask(["a", "b"], items=[inline("image", b"p")]), "prompt"),
        (ask(["a", "b"], prompt_logprobs=1), "prompt_logprobs"),
        (ask(["a"] * 9, n=16), "n"),
        (ask(messages=[]), "messages"),
        (ask(top_logprobs=1), "top_logprobs"),
        (ask(mood=1), "mood"),
        (ask(echo=True), "echo"),
        (ask(suffix="x"), "suffix"),
        (ask(temperature=3), "temperature"),
        (ask(logprobs=21), "logprobs"),
        (ask(max_tokens=0), "max_tokens"),
        (ask(model="other"), "model"),
    ],
)
async def test_a_fault_is_named_as_the_client_wrote_it(
    serve: Serve, every: Checkpoint, body: dict[str, Any], param: str
) -> None:
    service = ScriptedService([Last((65,), LENGTH)])
    async with serve(service, model=every, media=MediaConfig()) as client:
        response = await client.post(PATH, json=body)
    error = response.json()["error"]
    assert response.status_code == (404 if param == "model" else 400), error
    assert error["param"] == param, error
    assert "messages[" not in error["message"]
    assert service.specs == []
