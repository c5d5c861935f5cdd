"""The load generator against a server whose answers are written here."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from bench.serving.load import chat_body, run_load


def event(content: str, ids: list[int] | None = None) -> dict[str, Any]:
    choice: dict[str, Any] = {"delta": {"content": content}}
    return {"choices": [choice if ids is None else {**choice, "token_ids": ids}]}


USAGE = {
    "choices": [],
    "usage": {
        "prompt_tokens": 9,
        "completion_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 4},
    },
}


@contextmanager
def answering(*events: dict[str, Any], status: int = 200) -> Iterator[tuple[str, list[str]]]:
    """A server that streams these events; its URL and the prompts that it got."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = int(self.headers["Content-Length"])
            asked.append(json.loads(self.rfile.read(size))["messages"][0])
            self.send_response(status)
            self.end_headers()
            for one in events:
                self.wfile.write(f"data: {json.dumps(one)}\n\n".encode())
            self.wfile.write(b"data: [DONE]\n\n")

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1", asked
        finally:
            server.shutdown()
            thread.join()


def ask(url: str, num: int = 1, concurrency: int = 1) -> list[Any]:
    bodies = [chat_body("m", [str(number)], 3) for number in range(num)]
    return asyncio.run(run_load(url, bodies, concurrency=concurrency, timeout_s=30))


def test_every_event_with_tokens_is_an_arrival() -> None:
    with answering(event("", [1]), event("ab", [2, 3]), event("", []), USAGE) as (url, _):
        (record,) = ask(url)
    assert [num for _, num in record.arrivals] == [1, 2]
    assert record.sent <= record.arrivals[0][0] <= record.arrivals[1][0] <= record.ended
    assert (record.prompt_tokens, record.cached_tokens, record.completion_tokens) == (9, 4, 3)
    assert (record.text, record.error) == ("ab", "")


def test_without_token_ids_an_event_with_text_is_one_token() -> None:
    with answering(event(""), event("a"), event("b"), USAGE) as (url, _):
        (record,) = ask(url)
    assert [num for _, num in record.arrivals] == [1, 1]


def test_every_body_is_sent_once_whatever_the_number_of_clients() -> None:
    with answering(event("a", [1])) as (url, asked):
        records = ask(url, num=7, concurrency=3)
    assert sorted(asked) == [str(number) for number in range(7)]
    assert len(records) == 7


def test_a_refusal_and_an_error_in_the_stream_are_kept_as_such() -> None:
    with answering(status=400) as (url, _):
        (refused,) = ask(url)
    with answering(event("a", [1]), {"error": {"message": "died"}}) as (url, _):
        (broken,) = ask(url)
    assert refused.error.startswith("HTTP 400: ")
    assert "died" in broken.error


def test_a_server_that_is_not_there_is_an_error_of_each_request() -> None:
    with answering() as (url, _):
        pass
    (record,) = ask(url)
    assert record.error.startswith("connection: ")
