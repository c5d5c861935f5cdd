"""Several choices of one answer, and what is said of single tokens."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from tokenizers import Tokenizer

from epd.types import FinishReason
from tests.gateway.conftest import Serve
from tests.gateway.scripted import NUM_CACHED, PROMPT, Last, Of, ScriptedService, Step
from tests.gateway.test_routes import chat, events

pytestmark = pytest.mark.anyio

STOP, LENGTH = FinishReason.STOP, FinishReason.LENGTH


async def whole(client: httpx.AsyncClient, **fields: Any) -> ChatCompletion:
    """As the stock client reads it, every field checked."""
    response = await client.post("/v1/chat/completions", json=chat(**fields))
    assert response.status_code == 200
    return ChatCompletion.model_validate(response.json(), strict=True)


async def streamed(client: httpx.AsyncClient, **fields: Any) -> list[ChatCompletionChunk]:
    response = await client.post("/v1/chat/completions", json=chat(stream=True, **fields))
    *chunks, done = events(response)
    assert done == "[DONE]"
    return [ChatCompletionChunk.model_validate(chunk, strict=True) for chunk in chunks]


def interleaved(tokenizer: Tokenizer) -> list[Step]:
    """Three choices that come and end in no order."""
    ids = {text: tokenizer.encode(text).ids for text in ("one", " two", "uno", " dos", "eins")}
    [eos] = tokenizer.encode("<|im_end|>").ids
    return [
        Of(2, ids["eins"]),
        ids["one"],
        Of(1, ids["uno"]),
        Of(2, Last((eos,), STOP)),
        Of(1, ids[" dos"]),
        ids[" two"],
        Last((), LENGTH),
        Of(1, Last((eos,), STOP)),
    ]


WHOLE = [("one two", "length"), ("uno dos", "stop"), ("eins", "stop")]


async def test_choices_come_in_their_order(serve: Serve, tokenizer: Tokenizer) -> None:
    service = ScriptedService(interleaved(tokenizer))
    async with serve(service) as client:
        body = await whole(client, n=3, return_token_ids=True)
    assert [choice.index for choice in body.choices] == [0, 1, 2]
    assert [(c.message.content, c.finish_reason) for c in body.choices] == WHOLE
    tokens = [choice.model_extra["token_ids"] for choice in body.choices if choice.model_extra]
    assert tokens[0] == tokenizer.encode("one two").ids
    assert body.usage is not None and body.usage.prompt_tokens_details is not None
    assert body.usage.completion_tokens == sum(map(len, tokens))
    assert body.usage.total_tokens == len(PROMPT) + sum(map(len, tokens))
    assert body.usage.prompt_tokens_details.cached_tokens == NUM_CACHED
    assert (service.calls[0].ended, service.calls[0].num_cancels) == ([], 0)


async def test_choices_are_streamed_as_they_come(serve: Serve, tokenizer: Tokenizer) -> None:
    """Each begins with the role and ends with its own reason."""
    options = {"include_usage": True}
    async with serve(ScriptedService(interleaved(tokenizer))) as client:
        *chunks, last = await streamed(client, n=3, stream_options=options)
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert [choice.index for choice in choices] == [2, 0, 1, 2, 1, 0, 0, 1]
    for index, right in enumerate(WHOLE):
        mine = [choice for choice in choices if choice.index == index]
        roles = [choice.delta.role for choice in mine]
        assert roles == ["assistant"] + [None] * (len(mine) - 1)
        assert [choice.finish_reason for choice in mine[:-1]] == [None] * (len(mine) - 1)
        text = "".join(choice.delta.content or "" for choice in mine)
        assert (text, mine[-1].finish_reason) == right
    assert last.usage is not None
    num_tokens = sum(len(tokenizer.encode(text).ids) + (end == "stop") for text, end in WHOLE)
    assert last.usage.completion_tokens == num_tokens


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stop_string_ends_its_choice_alone(
    serve: Serve, tokenizer: Tokenizer, stream: bool
) -> None:
    """Tokens of it that are on their way are dropped; the cluster is told of this choice only."""
    a_b, c = tokenizer.encode("a b").ids, tokenizer.encode(" c").ids
    script: list[Step] = [a_b, Of(1, c), c, Of(1, a_b), Last((), LENGTH), Of(1, Last((), LENGTH))]
    service = ScriptedService(script)
    async with serve(service) as client:
        if stream:
            found = [c for chunk in await streamed(client, n=2, stop=" b") for c in chunk.choices]
            texts = ["", ""]
            for choice in found:
                texts[choice.index] += choice.delta.content or ""
            ends = {c.index: c.finish_reason for c in found if c.finish_reason}
        else:
            body = await whole(client, n=2, stop=" b")
            texts = [choice.message.content or "" for choice in body.choices]
            ends = {choice.index: choice.finish_reason for choice in body.choices}
    assert texts == ["a", " ca"]
    assert ends == {0: "stop", 1: "stop"}
    assert (service.calls[0].ended, service.calls[0].num_cancels) == ([0, 1], 0)


async def test_an_error_in_the_middle_cancels_the_choices_that_live(
    serve: Serve, tokenizer: Tokenizer
) -> None:
    service = ScriptedService([Of(1, Last((5,), LENGTH)), RuntimeError("broken")])
    async with serve(service) as client:
        response = await client.post("/v1/chat/completions", json=chat(n=2))
    assert response.status_code == 500
    assert service.calls[0].num_cancels == 1


async def test_stop_strings_count_from_the_least_length_on(
    serve: Serve, tokenizer: Tokenizer
) -> None:
    """What is before may contain them, and one that begins there is none."""
    ids = tokenizer.encode("xyxyxyxy").ids
    assert len(ids) == 8
    service = ScriptedService([ids[:3], ids[3:], Last((), LENGTH)])
    for min_tokens, right in (
        (0, ("", "stop", 2)),
        (2, ("xy", "stop", 4)),
        (3, ("xyxy", "stop", 6)),
        (8, ("xyxyxyxy", "length", 8)),
    ):
        async with serve(service) as client:
            body = await whole(client, stop="xy", min_tokens=min_tokens, max_tokens=8)
        [choice] = body.choices
        assert body.usage is not None
        found = (choice.message.content, choice.finish_reason, body.usage.completion_tokens)
        assert found == right


async def test_logprobs_have_openais_form(serve: Serve, tokenizer: Tokenizer) -> None:
    """One entry per counted token, the eos included; half a character has its true bytes."""
    snow = tokenizer.encode("\u2603").ids
    [eos] = tokenizer.encode("<|im_end|>").ids
    service = ScriptedService([snow, Last((eos,), STOP)])
    async with serve(service) as client:
        body = await whole(client, logprobs=True, top_logprobs=2)
    logprobs = body.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None and logprobs.refusal is None
    assert [entry.logprob for entry in logprobs.content] == [-i / 8 for i in (*snow, eos)]
    assert [entry.bytes for entry in logprobs.content] == [
        [0xE2],
        [0x98],
        [0x83],
        list(b"<|im_end|>"),
    ]
    assert logprobs.content[-1].token == "<|im_end|>"
    for entry in logprobs.content:
        assert [(top.token, top.logprob) for top in entry.top_logprobs] == [
            (tokenizer.decode([65]), -0.5),
            (tokenizer.decode([66]), -1.5),
        ]


async def test_streamed_logprobs_join_to_the_whole_answers(
    serve: Serve, tokenizer: Tokenizer
) -> None:
    """Also of tokens that are no text yet, and none of what comes after a stop string."""
    ids = tokenizer.encode("a \u2603 b").ids
    service = ScriptedService([[one] for one in ids] + [tokenizer.encode(" c d").ids])
    fields = {"logprobs": True, "stop": " c"}
    async with serve(service) as client:
        body = await whole(client, **fields)
        chunks = await streamed(client, **fields)
    right = body.choices[0].logprobs
    assert right is not None and right.content is not None
    assert len(right.content) > len(ids)
    assert all(entry.top_logprobs == [] for entry in right.content)
    parts = [chunk.choices[0].logprobs for chunk in chunks]
    joined = [entry for part in parts if part is not None for entry in part.content or ()]
    assert [e.model_dump() for e in joined] == [e.model_dump() for e in right.content]


async def test_logprobs_and_those_of_the_prompt_are_not_shown_to_others(
    serve: Serve, tokenizer: Tokenizer
) -> None:
    service = ScriptedService([tokenizer.encode("a").ids, Last((), LENGTH)])
    async with serve(service) as client:
        body = await whole(client)
        chunks = await streamed(client)
    assert body.choices[0].logprobs is None
    assert all(chunk.choices[0].logprobs is None for chunk in chunks)
    for found in (body, *chunks):
        assert "prompt_logprobs" not in (found.model_extra or {})


def of_prompt(tokenizer: Tokenizer, top: int) -> list[Any]:
    """What the script's model says of the prompt."""
    right: list[Any] = [None]
    for token_id in PROMPT[1:]:
        own = {"logprob": -token_id / 8, "decoded_token": tokenizer.decode([token_id])}
        likely = {
            str(65 + place): {
                "logprob": -0.5 - place,
                "rank": 1 + place,
                "decoded_token": tokenizer.decode([65 + place]),
            }
            for place in range(top)
        }
        right.append({str(token_id): own, **likely})
    return right


@pytest.mark.parametrize("top", [0, 2, 20])
async def test_the_prompts_logprobs_are_said_once(
    serve: Serve, tokenizer: Tokenizer, top: int
) -> None:
    """Beside the choices of a whole answer, and in the first chunk of a stream."""
    service = ScriptedService(interleaved(tokenizer))
    async with serve(service) as client:
        body = await whole(client, n=3, prompt_logprobs=top)
        first, *others = await streamed(client, n=3, prompt_logprobs=top)
    assert body.model_extra is not None and first.model_extra is not None
    assert body.model_extra["prompt_logprobs"] == of_prompt(tokenizer, top)
    assert first.model_extra["prompt_logprobs"] == of_prompt(tokenizer, top)
    assert all("prompt_logprobs" not in (chunk.model_extra or {}) for chunk in others)


async def test_token_ids_are_told_of_the_prompt_and_of_logprobs_to_who_asks(
    serve: Serve, tokenizer: Tokenizer
) -> None:
    """Several tokens may have one text, so a text alone does not say which one it was."""
    service = ScriptedService([tokenizer.encode("a").ids, Last((), LENGTH)])
    async with serve(service) as client:
        body = await whole(client, return_token_ids=True, logprobs=True, top_logprobs=1)
        first, *others = await streamed(client, return_token_ids=True)
        silent = await whole(client, logprobs=True)
    assert [spec.tells_prompt for spec in service.specs] == [True, True, False]
    assert body.model_extra is not None and first.model_extra is not None
    assert body.model_extra["prompt_token_ids"] == list(PROMPT)
    assert first.model_extra["prompt_token_ids"] == list(PROMPT)
    assert all("prompt_token_ids" not in (chunk.model_extra or {}) for chunk in others)
    assert body.choices[0].logprobs is not None and body.choices[0].logprobs.content is not None
    [entry] = body.choices[0].logprobs.content
    assert entry.model_extra == {"token_id": tokenizer.encode("a").ids[0]}
    assert [top.model_extra for top in entry.top_logprobs] == [{"token_id": 65}]
    assert silent.choices[0].logprobs is not None and silent.choices[0].logprobs.content is not None
    assert silent.choices[0].logprobs.content[0].model_extra == {}
    assert silent.model_extra is not None and "prompt_token_ids" not in silent.model_extra


async def test_the_salt_reaches_the_cluster(serve: Serve, tokenizer: Tokenizer) -> None:
    service = ScriptedService([Last((), LENGTH)])
    async with serve(service) as client:
        await whole(client, cache_salt="tenant 7")
        await whole(client)
    assert [spec.cache_salt for spec in service.specs] == ["tenant 7", ""]
