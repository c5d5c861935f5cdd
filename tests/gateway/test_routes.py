"""The HTTP surface over a scripted service."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer

from epd.errors import BadMedia, EpdError, InternalError, Overloaded, Unavailable
from epd.types import FinishReason
from tests.gateway.conftest import Serve
from tests.gateway.scripted import NUM_CACHED, Last, ScriptedService, Step

pytestmark = pytest.mark.anyio

DETAILS = {
    "cached_tokens": NUM_CACHED,
    **dict.fromkeys(("image_tokens", "video_tokens", "audio_tokens", "time_series_tokens"), 0),
}
PIXEL = "data:image/png;base64,aGVsbG8="


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], **fields}


def script(tokenizer: Tokenizer, *texts: str, end: FinishReason = FinishReason.STOP) -> list[Step]:
    """A run per text; an answer that stops ends with the eos token."""
    eos = tuple(tokenizer.encode("<|im_end|>").ids) if end is FinishReason.STOP else ()
    return [*(tokenizer.encode(text).ids for text in texts), Last(eos, end)]


def events(response: httpx.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


async def test_an_answer_has_openais_form(serve: Serve, tokenizer: Tokenizer) -> None:
    service = ScriptedService(script(tokenizer, "a small", " house"))
    async with serve(service) as client:
        body = (await client.post("/v1/chat/completions", json=chat())).json()
    num_tokens = len(tokenizer.encode("a small house").ids) + 1
    assert body.pop("created") > 0
    assert body == {
        "id": "chatcmpl-r0",
        "object": "chat.completion",
        "model": "tiny",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "a small house", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 7,
            "completion_tokens": num_tokens,
            "total_tokens": 7 + num_tokens,
            "prompt_tokens_details": DETAILS,
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }
    assert service.calls[0].num_cancels == 0


async def test_a_stream_has_openais_form(serve: Serve, tokenizer: Tokenizer) -> None:
    """The role with the first chunk, no usage unless asked for, and the end mark."""
    service = ScriptedService(
        script(tokenizer, "a small", " house\u2028!", end=FinishReason.LENGTH)
    )
    async with serve(service) as client:
        response = await client.post("/v1/chat/completions", json=chat(stream=True))
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    *chunks, done = events(response)
    assert done == "[DONE]"
    assert {(c["id"], c["object"], c["model"]) for c in chunks} == {
        ("chatcmpl-r0", "chat.completion.chunk", "tiny")
    }
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": "a small"},
        {"content": " house\u2028!"},
        {},
    ]
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None, None, "length"]
    assert all("usage" not in chunk for chunk in chunks)


async def test_usage_comes_last_where_it_is_asked_for(serve: Serve, tokenizer: Tokenizer) -> None:
    service = ScriptedService(script(tokenizer, "a"))
    body = chat(stream=True, stream_options={"include_usage": True})
    async with serve(service) as client:
        *chunks, usage, done = events(await client.post("/v1/chat/completions", json=body))
    assert done == "[DONE]" and all(chunk["usage"] is None for chunk in chunks)
    assert usage["choices"] == []
    assert usage["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 2,
        "total_tokens": 9,
        "prompt_tokens_details": DETAILS,
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stop_string_ends_the_request_on_the_cluster(
    serve: Serve, tokenizer: Tokenizer, stream: bool
) -> None:
    """The text before it is all that is shown, and the workers are told at once."""
    service = ScriptedService([*(tokenizer.encode(t).ids for t in ("one t", "wo three")), None])
    async with serve(service) as client:
        response = await client.post(
            "/v1/chat/completions", json=chat(stream=stream, stop=["two", "zzz"])
        )
    if stream:
        choices = [chunk["choices"][0] for chunk in events(response)[:-1]]
        text = "".join(choice["delta"].get("content", "") for choice in choices)
        reason = choices[-1]["finish_reason"]
    else:
        [choice] = response.json()["choices"]
        text, reason = choice["message"]["content"], choice["finish_reason"]
    assert (text, reason) == ("one ", "stop")
    assert (service.calls[0].ended, service.calls[0].num_cancels) == ([0], 0)


async def test_a_stopping_token_that_is_plain_text_is_not_shown(
    serve: Serve, tokenizer: Tokenizer
) -> None:
    """A client may name any token; it ends the answer and is no part of it."""
    x, y = tokenizer.encode("x").ids[0], tokenizer.encode("y").ids[0]
    service = ScriptedService([[x], Last((x, y), FinishReason.STOP)])
    async with serve(service) as client:
        response = await client.post("/v1/chat/completions", json=chat(stop_token_ids=[y, y]))
    body = response.json()
    assert body["choices"][0]["message"]["content"] == "xx"
    assert body["usage"]["completion_tokens"] == 3
    assert service.specs[0].sampling.stop_token_ids.count(y) == 1


async def test_token_ids_are_shown_to_those_who_ask(serve: Serve, tokenizer: Tokenizer) -> None:
    """All generated ids, the one that stops included, also where they are no text (yet)."""
    texts = [tokenizer.encode(text).ids for text in ("a small", " house \u2603")]
    [eos] = tokenizer.encode("<|im_end|>").ids
    runs = [texts[0], *([one] for one in texts[1]), [eos]]
    service = ScriptedService([*runs[:-1], Last((eos,), FinishReason.STOP)])
    body = chat(return_token_ids=True)
    async with serve(service) as client:
        [whole] = (await client.post("/v1/chat/completions", json=body)).json()["choices"]
        streamed = await client.post("/v1/chat/completions", json={**body, "stream": True})
    choices = [chunk["choices"][0] for chunk in events(streamed)[:-1]]
    assert whole["token_ids"] == sum(runs, [])
    assert [choice["token_ids"] for choice in choices] == runs
    assert (
        "".join(choice["delta"].get("content", "") for choice in choices) == "a small house \u2603"
    )
    assert {} in [choice["delta"] for choice in choices[:-1]]  # a byte of a character to come


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fields", [{}, {"return_token_ids": False}, {"return_token_ids": None}])
async def test_token_ids_are_not_shown_to_others(
    serve: Serve, tokenizer: Tokenizer, fields: dict[str, Any], stream: bool
) -> None:
    async with serve(ScriptedService(script(tokenizer, "a"))) as client:
        response = await client.post("/v1/chat/completions", json=chat(stream=stream, **fields))
    assert response.status_code == 200 and "token_ids" not in response.text


async def test_token_ids_end_with_the_stop_string(serve: Serve, tokenizer: Tokenizer) -> None:
    """As many as usage counts; what the workers made beyond it is not part of the answer."""
    one, two = (tokenizer.encode(text).ids for text in ("one two", " three"))
    async with serve(ScriptedService([[*one, *two], None])) as client:
        response = await client.post(
            "/v1/chat/completions", json=chat(stop="two", return_token_ids=True)
        )
    [choice] = response.json()["choices"]
    assert choice["message"]["content"] == "one " and choice["token_ids"] == one
    assert response.json()["usage"]["completion_tokens"] == len(one)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (BadMedia("messages[0].content[0]: no picture"), 422, "invalid_request_error"),
        (Overloaded("no room"), 429, "rate_limit_error"),
        (Unavailable("no encode worker"), 503, "server_error"),
        (InternalError("prefill: broken"), 500, "server_error"),
    ],
)
async def test_an_error_before_the_first_token_has_its_own_status(
    serve: Serve, stream: bool, error: Any, status: int, kind: str
) -> None:
    """Streaming or not, refused at once or failed later: headers never went out before."""
    for service in (ScriptedService(refusal=error), ScriptedService([error])):
        async with serve(service) as client:
            response = await client.post("/v1/chat/completions", json=chat(stream=stream))
        assert response.status_code == status
        assert response.json() == {
            "error": {
                "message": error.message,
                "type": kind,
                "param": None,
                "code": error.code,
            }
        }


@pytest.mark.parametrize(
    ("error", "after"),
    [
        (Overloaded("no room"), "1"),
        (Overloaded("no room", retry_after_s=0.2), "1"),
        (Overloaded("no room", retry_after_s=6.5), "7"),
        (InternalError("prefill: broken"), None),
    ],
)
async def test_a_refusal_says_when_to_try_again(
    serve: Serve, error: EpdError, after: str | None
) -> None:
    """In whole seconds, never too early; of other errors nothing is known."""
    for service in (ScriptedService(refusal=error), ScriptedService([error])):
        async with serve(service) as client:
            response = await client.post("/v1/chat/completions", json=chat())
        assert response.headers.get("retry-after") == after


async def test_an_error_after_the_first_token_is_an_event(
    serve: Serve, tokenizer: Tokenizer
) -> None:
    """The status is out already; the end mark does not follow, the answer is not whole."""
    service = ScriptedService([tokenizer.encode("a").ids, Unavailable("decode worker died")])
    async with serve(service) as client:
        response = await client.post("/v1/chat/completions", json=chat(stream=True))
    first, last = events(response)
    assert response.status_code == 200 and first["choices"][0]["delta"]["content"] == "a"
    assert last["error"]["message"] == "decode worker died"
    assert service.calls[0].num_cancels == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_an_unexpected_error_is_logged_and_not_shown(
    serve: Serve, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    service = ScriptedService([RuntimeError("secret /etc/path")])
    with caplog.at_level(logging.ERROR):
        async with serve(service) as client:
            response = await client.post("/v1/chat/completions", json=chat(stream=stream))
    assert response.status_code == 500 and "secret" not in response.text
    assert response.json()["error"]["type"] == "server_error"
    assert "secret" in caplog.text and "Traceback" in caplog.text
    assert service.calls[0].num_cancels == 1


async def test_an_unexpected_error_in_a_stream_is_an_event(
    serve: Serve, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    service = ScriptedService([tokenizer.encode("a").ids, RuntimeError("secret")])
    async with serve(service) as client:
        response = await client.post("/v1/chat/completions", json=chat(stream=True))
    assert events(response)[-1]["error"]["code"] == "internal_error"
    assert "secret" not in response.text and "secret" in caplog.text


async def test_tokens_that_end_without_a_reason_are_our_fault(
    serve: Serve, tokenizer: Tokenizer
) -> None:
    async with serve(ScriptedService([tokenizer.encode("a").ids])) as client:
        response = await client.post("/v1/chat/completions", json=chat())
    assert response.status_code == 500
    assert "without a finish reason" in response.json()["error"]["message"]


async def test_the_prompt_reaches_the_service(serve: Serve, tokenizer: Tokenizer) -> None:
    """Text, a picture inline and one by URL, system prompt, sampling and deadline."""
    service = ScriptedService(script(tokenizer, "a"))
    messages = [
        {"role": "developer", "content": "be brief"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "compare "},
                {"type": "image_url", "image_url": {"url": PIXEL, "detail": "auto"}},
                {"type": "image_url", "image_url": {"url": "https://example.org/b.png"}},
            ],
        },
    ]
    async with serve(service, request_timeout_s=5) as client:
        response = await client.post(
            "/v1/chat/completions", json=chat(messages=messages, max_tokens=3, temperature=0)
        )
    assert response.status_code == 200
    [spec] = service.specs
    assert [(part.source.url, part.source.data) for part in spec.draft.parts] == [
        (None, b"hello"),
        ("https://example.org/b.png", None),
    ]
    text = tokenizer.decode(list(spec.draft.text[0]), skip_special_tokens=False)
    assert text.startswith("<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\ncompare ")
    assert (spec.sampling.max_tokens, spec.sampling.temperature, spec.deadline_s) == (3, 0.0, 5.0)


async def test_the_other_routes_answer(serve: Serve) -> None:
    service = ScriptedService()
    card = {
        "id": "tiny",
        "root": "tiny",
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "epd",
        "max_model_len": 4096,
        "items": {"image": 16, "video": 4},
    }
    async with serve(service) as client:
        assert (await client.get("/v1/models")).json() == {"object": "list", "data": [card]}
        assert (await client.get("/v1/models/tiny")).json() == card
        assert (await client.get("/v1/models/org/other")).status_code == 404
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/ready")).status_code == 200
        service.is_ready = False
        assert (await client.get("/ready")).status_code == 503
        metrics = await client.get("/metrics")
    assert metrics.text == "epd_requests_total 3\n"
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/redoc", 404, "not_found"),
        ("GET", "/v1/models/", 404, "model_not_found"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("POST", "/health/", 404, "not_found"),
    ],
)
async def test_unknown_routes_have_openais_error_form(
    serve: Serve, method: str, path: str, status: int, code: str
) -> None:
    async with serve(ScriptedService()) as client:
        response = await client.request(method, path)
    assert response.status_code == status
    assert response.json()["error"]["code"] == code
    assert response.json()["error"]["type"] == "invalid_request_error"


async def test_a_body_over_the_limit_is_refused_before_it_is_read(serve: Serve) -> None:
    """By what it announces, or, where it does not, by what has come."""
    read = 0

    async def body(num: int) -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(num):
            read += 1
            yield b" " * 1024

    async with serve(ScriptedService(), max_body_bytes=4096) as client:
        for headers, most_read in (({"content-length": "10240"}, 0), ({}, 5)):
            read = 0
            response = await client.post("/v1/chat/completions", content=body(10), headers=headers)
            assert response.status_code == 413
            assert response.json()["error"]["code"] == "too_large"
            assert read <= most_read


async def test_bodies_beyond_the_budget_get_429(serve: Serve) -> None:
    service = ScriptedService()
    async with serve(service, max_body_bytes=4096, media_budget_bytes=4096) as client:
        app_front = client._transport.app.state.front
        app_front._bytes_held = 4096
        response = await client.post("/v1/chat/completions", json=chat())
        app_front._bytes_held = 0
        assert response.status_code == 429
        assert response.json()["error"]["code"] == "overloaded"
        app_front._num_held = 1024
        assert (await client.post("/v1/chat/completions", json=chat())).status_code == 429
