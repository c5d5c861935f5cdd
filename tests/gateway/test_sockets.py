"""The same over real sockets: uvicorn, the stock client, and clients that leave."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
import uvicorn
from tokenizers import Tokenizer

from epd.config import GatewayConfig, MediaConfig
from epd.errors import BadMedia, Unavailable
from epd.gateway import Front, create_app
from epd.models.spec import Checkpoint
from epd.types import FinishReason
from tests.gateway.scripted import Last, ScriptedService

pytestmark = pytest.mark.anyio

MESSAGES: list[Any] = [{"role": "user", "content": "hi"}]


@asynccontextmanager
async def listening(
    service: ScriptedService, checkpoint: Checkpoint, **config: Any
) -> AsyncIterator[tuple[str, int]]:
    """Serves the app on a free port of the loopback."""
    app = create_app(service, Front(checkpoint, GatewayConfig(**config), MediaConfig()))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=2))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield listener.getsockname()[:2]
        finally:
            server.should_exit = True
            await serving


@asynccontextmanager
async def stock_client(address: tuple[str, int]) -> AsyncIterator[openai.AsyncOpenAI]:
    host, port = address
    async with openai.AsyncOpenAI(
        base_url=f"http://{host}:{port}/v1", api_key="none", max_retries=0
    ) as client:
        yield client


def answer(tokenizer: Tokenizer, *texts: str) -> list[Any]:
    eos = tuple(tokenizer.encode("<|im_end|>").ids)
    return [*(tokenizer.encode(text).ids for text in texts), Last(eos, FinishReason.STOP)]


async def test_the_stock_client_gets_an_answer(
    checkpoint: Checkpoint, tokenizer: Tokenizer
) -> None:
    service = ScriptedService(answer(tokenizer, "a small", " house"))
    async with listening(service, checkpoint) as address, stock_client(address) as client:
        found = await client.chat.completions.create(model="tiny", messages=MESSAGES)
        assert found.choices[0].message.content == "a small house"
        assert found.usage is not None and found.usage.prompt_tokens == 7
        again = [*MESSAGES, found.choices[0].message.model_dump(), *MESSAGES]
        await client.chat.completions.create(model="tiny", messages=again)
        assert [card.id for card in (await client.models.list()).data] == ["tiny"]


async def test_the_stock_client_gets_a_stream(checkpoint: Checkpoint, tokenizer: Tokenizer) -> None:
    service = ScriptedService(answer(tokenizer, "a small", " house \U0001f600\u2028", "!"))
    async with listening(service, checkpoint) as address, stock_client(address) as client:
        stream = await client.chat.completions.create(
            model="tiny",
            messages=MESSAGES,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "a small house \U0001f600\u2028!"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens > 4


async def test_the_stock_client_gets_errors_by_their_status(
    checkpoint: Checkpoint, tokenizer: Tokenizer
) -> None:
    """Before the first token a status, after it an exception while iterating."""
    service = ScriptedService(refusal=BadMedia("no picture"))
    async with listening(service, checkpoint) as address, stock_client(address) as client:
        with pytest.raises(openai.UnprocessableEntityError, match="no picture"):
            await client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True)
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="other", messages=MESSAGES)
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model="tiny", messages=MESSAGES, n=17)
        assert caught.value.param == "n"
        service.refusal = None
        service.script = [tokenizer.encode("a").ids, Unavailable("decode died")]
        stream = await client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True)
        with pytest.raises(openai.APIError, match="decode died"):
            async for _ in stream:
                pass


async def connect(address: tuple[str, int], **fields: Any) -> tuple[Any, asyncio.StreamWriter]:
    """Sends a chat request by hand, so that the connection can be dropped at any moment."""
    reader, writer = await asyncio.open_connection(*address)
    body = json.dumps({"model": "tiny", "messages": MESSAGES, **fields}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    return reader, writer


async def leave(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("stream", [False, True])
async def test_leaving_before_the_first_token_cancels(checkpoint: Checkpoint, stream: bool) -> None:
    service = ScriptedService([None])
    async with listening(service, checkpoint) as address, asyncio.timeout(20):
        _, writer = await connect(address, stream=stream)
        await service.taken.wait()
        await service.calls[0].waiting.wait()
        await leave(writer)
        await service.calls[0].cancelled.wait()
    assert service.calls[0].num_cancels == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_leaving_while_the_cluster_decides_cancels(
    checkpoint: Checkpoint, stream: bool
) -> None:
    service = ScriptedService(hangs=True)
    async with listening(service, checkpoint) as address, asyncio.timeout(20):
        _, writer = await connect(address, stream=stream)
        await service.taken.wait()
        await leave(writer)
        await service.left.wait()


async def test_leaving_in_the_middle_cancels(checkpoint: Checkpoint, tokenizer: Tokenizer) -> None:
    """While the cluster is silent, so no failed write tells that the client is gone."""
    service = ScriptedService([tokenizer.encode("a").ids, None])
    async with listening(service, checkpoint) as address, asyncio.timeout(20):
        reader, writer = await connect(address, stream=True)
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        await service.calls[0].waiting.wait()
        await leave(writer)
        await service.calls[0].cancelled.wait()
    assert service.calls[0].num_cancels == 1


@pytest.mark.parametrize(
    ("path", "length"),
    [
        ("/v1/chat/completions", "Content-Length: 1000"),
        ("/v1/responses", "Transfer-Encoding: chunked"),
        ("/cluster/drain", "Content-Length: 1000"),
    ],
)
async def test_a_body_that_does_not_come_in_time_gives_its_place_back(
    checkpoint: Checkpoint, path: str, length: str
) -> None:
    """The one place that there is; the answer has OpenAI's form, and the connection ends."""
    service = ScriptedService([Last((65,), FinishReason.LENGTH)])
    bounds = {"body_timeout_s": 0.2, "max_waiting": 1}
    async with listening(service, checkpoint, **bounds) as address, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection(*address)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{length}"
        writer.write(f"{head}\r\n\r\n".encode() + (b"1\r\n{\r\n" if "chunked" in length else b"{"))
        answered = await reader.read()
        await leave(writer)
        async with stock_client(address) as client:
            await client.chat.completions.create(model="tiny", messages=MESSAGES)
    head, _, body = answered.decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 408")
    assert json.loads(body)["error"] == {
        "message": "the body did not come within 0.2 s",
        "type": "invalid_request_error",
        "param": None,
        "code": "slow_sender",
    }
    assert len(service.specs) == 1


async def test_a_body_that_comes_slowly_but_in_time_is_read(checkpoint: Checkpoint) -> None:
    service = ScriptedService([Last((65,), FinishReason.LENGTH)])
    body = json.dumps({"model": "tiny", "messages": MESSAGES}).encode()
    async with listening(service, checkpoint, body_timeout_s=20) as address, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection(*address)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
        writer.write(f"{head}\r\n\r\n".encode())
        for at in range(0, len(body), 16):
            writer.write(body[at : at + 16])
            await writer.drain()
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        await leave(writer)


async def test_no_header_goes_out_before_the_first_token(checkpoint: Checkpoint) -> None:
    service = ScriptedService([None])
    async with listening(service, checkpoint) as address, asyncio.timeout(20):
        reader, writer = await connect(address, stream=True)
        await service.taken.wait()
        await service.calls[0].waiting.wait()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.05)
        await leave(writer)
        await service.calls[0].cancelled.wait()


def test_the_gateway_runs_where_torch_cannot_be_imported(checkpoint: Checkpoint) -> None:
    """And imports none where it could."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from epd.config import GatewayConfig, MediaConfig\n"
        "from epd.gateway import Front, create_app\n"
        "from epd.models.spec import read_checkpoint\n"
        "checkpoint = read_checkpoint(sys.argv[1])\n"
        "app = create_app(None, Front(checkpoint, GatewayConfig(), MediaConfig()))\n"
        "assert not sys.modules.get('torch')\n"
    )
    for program in (code, code.replace("sys.modules['torch'] = None", "")):
        command = [sys.executable, "-c", program, str(checkpoint.path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
