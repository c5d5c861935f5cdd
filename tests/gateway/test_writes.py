"""How a stream is cut into writes: tokens that came together go out together, each an event."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tokenizers import Tokenizer

from epd.config import GatewayConfig, MediaConfig
from epd.errors import Unavailable
from epd.gateway import Front, create_app
from epd.gateway.answer import MOST_AT_ONCE
from epd.models.spec import Checkpoint
from epd.types import FinishReason
from tests.gateway.scripted import Last, ScriptedService, Step

pytestmark = pytest.mark.anyio

END = Last((65,), FinishReason.LENGTH)


async def writes(checkpoint: Checkpoint, service: ScriptedService) -> list[bytes]:
    """What the server is given to send, write by write."""
    front = Front(checkpoint, GatewayConfig(), MediaConfig())
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "query_string": b"",
        "headers": [],
    }
    asked = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        if asked:
            return asked.pop()
        return await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    await create_app(service, front)(scope, receive, send)
    front.close()
    assert [message["type"] for message in sent[:2]] == [
        "http.response.start",
        "http.response.body",
    ]
    assert [message["more_body"] for message in sent[1:]] == [True] * (len(sent) - 2) + [False]
    return [message["body"] for message in sent[1:]]


def script(tokenizer: Tokenizer, num: int) -> list[Step]:
    [token] = tokenizer.encode("a").ids
    return [*([token] for _ in range(num)), END]


async def test_every_token_is_written_when_it_comes(
    checkpoint: Checkpoint, tokenizer: Tokenizer
) -> None:
    found = await writes(checkpoint, ScriptedService(script(tokenizer, 5)))
    assert [write.count(b"data: {") for write in found] == [1] * 6 + [0]
    assert found[-1] == b"data: [DONE]\n\n"


async def test_tokens_that_came_together_are_one_write_of_the_same_events(
    checkpoint: Checkpoint, tokenizer: Tokenizer
) -> None:
    steps = script(tokenizer, MOST_AT_ONCE + 9)
    alone = await writes(checkpoint, ScriptedService(steps))
    together = await writes(checkpoint, ScriptedService(steps, together=True))
    assert [write.count(b"data: {") for write in together] == [MOST_AT_ONCE, 10, 0]
    assert _said(together) == _said(alone)


async def test_an_error_comes_behind_the_tokens_that_came_before_it(
    checkpoint: Checkpoint, tokenizer: Tokenizer
) -> None:
    """Those that wait to be written with others are not lost."""
    steps = [*script(tokenizer, 3)[:-1], Unavailable("decode died")]
    found = _said(await writes(checkpoint, ScriptedService(steps, together=True)))
    assert [event["choices"][0]["delta"]["content"] for event in found[:-1]] == ["a"] * 3
    assert found[-1]["error"]["message"] == "decode died"


def _said(found: list[bytes]) -> list[dict[str, Any]]:
    """The events but for what differs between two answers."""
    lines = b"".join(found).decode().split("\n\n")
    events = [
        json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")
    ]
    return [{k: v for k, v in event.items() if k not in ("id", "created")} for event in events]
