"""What the gateway is measured against: Starlette and uvicorn with nothing behind them.

The same forms of answers, from the same server with the same settings: a stream of as many events
as tokens were asked for, or one JSON object. Nothing is validated, templated, tokenised or owned.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

DONE = b"data: [DONE]\n\n"


def chunk(word: str, finish_reason: str | None) -> dict[str, Any]:
    """An event as large as the gateway's."""
    choice = {
        "index": 0,
        "delta": {"content": word},
        "logprobs": None,
        "finish_reason": finish_reason,
    }
    return {
        "id": "chatcmpl-0123456789abcdef01234567",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "thirty-million",
        "choices": [choice],
    }


def event(word: str, finish_reason: str | None = None) -> bytes:
    data = json.dumps(chunk(word, finish_reason), separators=(",", ":"))
    return f"data: {data}\n\n".encode("ascii")


async def answer(request: Request) -> Response:
    """`max_tokens` tokens."""
    body = await request.json()
    num = body["max_tokens"]
    if not body.get("stream"):
        return JSONResponse(chunk(" word" * num, "length"))
    events = _events(num, body.get("pace_s", 0))
    return StreamingResponse(events, media_type="text/event-stream")


async def _events(num: int, pace_s: float) -> AsyncIterator[bytes]:
    """Each event is made when its turn comes, as it has to be where the text is not known. At a
    pace, those of all streams come together, as from an engine's steps.
    """
    loop = asyncio.get_running_loop()
    for index in range(num):
        if pace_s:
            await asyncio.sleep(pace_s - loop.time() % pace_s)
        yield event(" word", "length" if index == num - 1 else None)
    yield DONE


def main() -> None:
    """Serve on a free port of the loopback, which is printed."""
    routes = [Route("/v1/chat/completions", answer, methods=["POST"])]
    http = socket.create_server(("127.0.0.1", 0), backlog=1024)
    http.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    print(f"http://127.0.0.1:{http.getsockname()[1]}", flush=True)
    server = uvicorn.Server(
        uvicorn.Config(Starlette(routes=routes), log_config=None, access_log=False)
    )
    server.run(sockets=[http])


if __name__ == "__main__":
    main()
