"""A server of OpenAI's chat API that has no model: what a load generator is measured against.

    python -m bench.serving.null_server --port 8123

It answers with as many tokens as were asked for, one event each, and tells in the usage, where
`epd` tells the path of a request, when the request's first and last byte came and when each event
was written: times of CLOCK_MONOTONIC, which the processes of one machine share.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import time

MODEL = "null"
HEAD_END = b"\r\n\r\n"
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
TOKENS = re.compile(rb'"max_(?:completion_)?tokens":(\d+)')
LAST = 1 << 10
"""Bytes at a body's end that have the number of tokens, as `epd bench` writes it."""

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
WORD = b'data: {"choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}\n\n'


class Answering(asyncio.Protocol):
    """One connection. Tokens are `gap_s` apart."""

    def __init__(self, gap_s: float) -> None:
        self._gap_s = gap_s
        self._transport: asyncio.Transport
        self._begin()

    def _begin(self) -> None:
        self._head = b""
        self._left: int | None = None
        self._last = b""
        self._first_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self._first_at = self._first_at or now
        if self._left is None:
            self._head += data
            head, found, data = self._head.partition(HEAD_END)
            if not found:
                return
            length = LENGTH.search(head)
            self._left = int(length[1]) if length else 0
            if head.startswith(b"GET "):
                self._tell_models(head)
        self._left -= len(data)
        self._last = (self._last + data)[-LAST:]
        if self._left == 0 and not self._head.startswith(b"GET "):
            self._answer(now)
        if self._left == 0:
            self._begin()

    def _tell_models(self, head: bytes) -> None:
        known = head.startswith(b"GET /v1/models ")
        body = json.dumps({"object": "list", "data": [{"id": MODEL}]}) if known else "{}"
        status = "200 OK" if known else "404 Not Found"
        answer = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        self._transport.write(answer.encode())

    def _answer(self, now: float) -> None:
        found = TOKENS.search(self._last)
        told = {"first_byte_at": self._first_at, "last_byte_at": now}
        self._transport.write(STREAM)
        self._token(int(found[1]) if found else 1, [], told)

    def _token(self, num: int, written: list[float], told: dict[str, float]) -> None:
        """Write one more of `num`, and see to the others."""
        if self._transport.is_closing():
            return
        written.append(time.perf_counter())
        if len(written) < num:
            self._transport.write(_chunk(WORD))
            loop = asyncio.get_running_loop()
            loop.call_at(loop.time() + self._gap_s, self._token, num, written, told)
            return
        usage = {"prompt_tokens": 1, "completion_tokens": num}
        end = {"choices": [], "usage": {**usage, "epd": {**told, "written_at": written}}}
        events = WORD + b"data: " + json.dumps(end).encode() + b"\n\ndata: [DONE]\n\n"
        self._transport.write(_chunk(events) + b"0\r\n\r\n")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def serve(port: int, gap_s: float) -> None:
    """Until the task is cancelled; the URL is printed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Answering(gap_s), "127.0.0.1", port, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    async with server:
        await server.serve_forever()


def main() -> None:
    """On the loopback alone."""
    parser = argparse.ArgumentParser(prog="python -m bench.serving.null_server")
    parser.add_argument("--port", type=int, default=0, help="0 is a free one")
    parser.add_argument("--gap-ms", type=float, default=10.0, help="between two tokens")
    args = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(args.port, args.gap_ms / 1000))


if __name__ == "__main__":
    main()
